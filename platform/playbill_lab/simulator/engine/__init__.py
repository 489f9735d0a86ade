"""The days of a simulated service: visits, pages, choices and playback, written as events."""
