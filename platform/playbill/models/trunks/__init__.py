"""Networks over the events of a history, one file for each registered trunk."""
