/* half.h - float16 and bfloat16 by their definition, in double: what a pattern of 16 bits is worth, and which of them
 * is nearest to a number. Slow and obvious; the library's own conversions are held against it. */
#ifndef SOFTXENT_TESTS_HALF_H
#define SOFTXENT_TESTS_HALF_H

#include <math.h>
#include <stdint.h>

/* The number of bits of the fraction, and the exponent of the smallest normal number. */
typedef struct {
    const char *name;
    int fraction, least;
} half_format;

static const half_format f16_format = {"f16", 10, -14}, bf16_format = {"bf16", 7, -126};

static inline uint16_t infinite_half(half_format f) { return (uint16_t)(0x7fff >> f.fraction << f.fraction); }

static inline int is_nan_half(half_format f, uint16_t half) { return (half & 0x7fff) > infinite_half(f); }

static inline double value_of_half(half_format f, uint16_t half)
{
    const int exponent = (half & 0x7fff) >> f.fraction, fraction = half & ((1 << f.fraction) - 1);
    const double sign = half & 0x8000 ? -1 : 1;
    if (is_nan_half(f, half)) return NAN;
    if ((half & 0x7fff) == infinite_half(f)) return sign * INFINITY;
    if (exponent == 0) return sign * ldexp(fraction, f.least - f.fraction);
    return sign * ldexp(fraction + (1 << f.fraction), f.least - f.fraction + exponent - 1);
}

/* The nearest half. Of two that are equally near it is the even one. A number that is half a place or more beyond the
 * largest half becomes infinity. The patterns of one sign lie in the order of their values, so that a fraction that is
 * rounded up to 2 carries into the exponent. */
static inline uint16_t nearest_half(half_format f, double x)
{
    const uint16_t sign = signbit(x) ? 0x8000 : 0, infinity = infinite_half(f);
    if (isnan(x)) return (uint16_t)(sign | infinity | 1);
    if (isinf(x)) return (uint16_t)(sign | infinity);
    int exponent;
    frexp(x, &exponent); /* x = [1/2, 1) 2^exponent */
    exponent = x == 0 || exponent - 1 < f.least ? f.least : exponent - 1;
    const double units = rint(ldexp(fabs(x), f.fraction - exponent)); /* of two equally near ones, the even one */
    const double pattern = ldexp(exponent - f.least, f.fraction) + units;
    return (uint16_t)(sign | (pattern < infinity ? (uint16_t)pattern : infinity));
}

#endif
