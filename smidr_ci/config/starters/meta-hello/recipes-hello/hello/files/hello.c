#include <stdio.h>

int main(void)
{
	puts("Hello from BitBake");
	return 0;
}
