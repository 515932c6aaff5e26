#include <stdio.h>

int main(void)
{
	puts("21.5 C");
	return 0;
}
