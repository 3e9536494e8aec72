/* file: what the C library leaves out about files. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

/* Makes a file's content, or the names in a directory, durable. Returns 0, or -1 with errno set. */
int file_sync(const char *path);

#endif
