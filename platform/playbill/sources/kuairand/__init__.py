"""The public logs of KuaiRand."""
