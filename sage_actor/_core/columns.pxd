# nothing is shared in C; the file says so
