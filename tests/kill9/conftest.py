"""The scripts of this folder run in processes of their own, and import each other by name; only the tests are collected."""

collect_ignore_glob = ["[!t]*.py"]
