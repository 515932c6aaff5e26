#ifndef GREET_H
#define GREET_H

#include <stddef.h>

#define GREET_MAX 128

/* Write a greeting for `name` to `line`, cut to `size` bytes with the final zero. */
void greet(char *line, size_t size, const char *name);

#endif
