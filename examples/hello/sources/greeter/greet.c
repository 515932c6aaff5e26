#include "greet.h"

#include <stdio.h>

void greet(char *line, size_t size, const char *name)
{
    snprintf(line, size, "Hello from %s!", name);
}
