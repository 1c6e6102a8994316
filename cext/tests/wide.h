/* wide.h - exp in long double, whatever the C library has: there are some whose expl is no better than exp. */
#ifndef SOFTXENT_TESTS_WIDE_H
#define SOFTXENT_TESTS_WIDE_H

#include <math.h>

/* x = n ln 2 + r, with ln 2 in two pieces of which the first has 37 bits; then exp(r) by its series, |r| <= 0.35, where
 * 30 terms are enough for 113 bits. */
static inline long double wide_exp(long double x)
{
    if (x != x || x > 20000) return x + INFINITY;
    if (x < -20000) return 0;
    const long double n = nearbyintl(x / 0x1.62e42fefa39ef35793c7673007e5p-1L);
    const long double r = (x - n * 0x1.62e42fefap-1L) - n * 0x1.cf79abc9e3b39803f2f6af40f343p-40L;
    long double sum = 1;
    for (int k = 30; k > 0; --k) sum = 1 + sum * r / k;
    return ldexpl(sum, (int)n);
}

#endif
