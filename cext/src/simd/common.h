/* common.h - what the vector layers share: how a function is forced inline and a small loop unrolled.
 *
 * The vector layer is one header per instruction set. Each header defines the same names, for X in f32 and f64: the
 * types vec_X and mask_X, the constant LANES_X, and the operations below. It also defines FUSED and HAS_ROW_KERNEL.
 * HAS_ROW_KERNEL is 0 if a vector has one lane: the lane kernel then reads a row as well as a row kernel could.
 *
 *     set1 load store load_till store_till     till: the first n lanes; the others are `fill`, or are not written
 *     add sub mul div                          rounded once each
 *     fma(a, b, c), fnma(a, b, c)              a b + c and c - a b: fused where FUSED is 1
 *     mul_error(a, b, p)                       a b - p, exactly, where p = mul(a, b) and neither over- nor underflows
 *     max(a, b)                                b where either is nan
 *     eq lt select(m, a, b) any                comparisons are false for nan; any: not 0 if a lane of the mask is set
 *     add_where add_unless (m, acc, x)         acc + x in the lanes that are (not) set, acc in the others
 *     mul_unless(m, a, b)                      a b, and 0 b in the lanes that are set
 *     to_exponent(t)                           the low bits of t's mantissa, as the exponent of a power of two
 *     split(u, &scale)                         k with u 2^-k in [sqrt 1/2, sqrt 2), and scale = 2^-k; u is normal
 *     of_int64(p)                              LANES numbers below 2^51 in size, as reals
 *     first hmax hsum                          lane 0; across the lanes: hsum in double, in a fixed order
 *     transpose(r)                             transposes LANES vectors of LANES lanes, in place
 *
 * These operations are for f32 alone. They convert between a vector and LANES halves in memory:
 *
 *     widen_f16 widen_bf16 (p)                 exact; a nan becomes a nan
 *     narrow_f16 narrow_bf16 (p, v)            rounded to nearest even, to infinity beyond the largest
 */
#ifndef SOFTXENT_SIMD_COMMON_H
#define SOFTXENT_SIMD_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER) && !defined(__clang__)
#  define SIMD_INLINE static __forceinline
#  define UNROLL
#  define UNROLL_4
#else
#  define SIMD_INLINE static inline __attribute__((always_inline, unused))
#  ifdef __clang__
#    define UNROLL _Pragma("clang loop unroll_count(16)")
#    define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#  else
#    define UNROLL _Pragma("GCC unroll 16")
#    define UNROLL_4 _Pragma("GCC unroll 4")
#  endif
#endif

/* Both prefetch the cache line of an address, which need not be valid. PREFETCH_TO_WRITE also asks to own the line. */
#if defined(__GNUC__) || defined(__clang__)
#  define PREFETCH(p) __builtin_prefetch(p)
#  define PREFETCH_TO_WRITE(p) __builtin_prefetch(p, 1)
#else
#  define PREFETCH(p) ((void)(p))
#  define PREFETCH_TO_WRITE(p) ((void)(p))
#endif

enum { CACHE_LINE = 64 }; /* bytes */

typedef float real_f32;
typedef double real_f64;

static inline float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t bits_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline double double_of_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline double larger(double x, double y) { return x > y ? x : y; }

/* power_of_2 is 2 to an exponent. exponent_of is the exponent of x: -1023 for 0 and subnormal numbers, 1024 for
 * infinity and nan. */
static inline double power_of_2(int exponent) { return double_of_bits((uint64_t)(exponent + 1023) << 52); }

static inline int exponent_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (int)(bits >> 52 & 0x7ff) - 1023;
}

/* A half as a float, in plain C. The exponent of a float16 is moved to its place in a float. A multiplication corrects
 * its bias, and also makes subnormal halves normal. A bfloat16 is the upper half of a float. */
static inline float float_of_f16(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = half & 0x7fff;
    if (magnitude >= 0x7c00) return float_of_bits(sign | 0x7f800000 | magnitude << 13);
    return float_of_bits(sign | bits_of_float(float_of_bits(magnitude << 13) * 0x1p112f));
}

static inline float float_of_bf16(uint16_t half) { return float_of_bits((uint32_t)half << 16); }

/* A float as a half, rounded to nearest even. A power of two is added whose last place is that of the half: the
 * addition rounds there. */
static inline uint16_t f16_of_float(float x)
{
    const uint32_t bits = bits_of_float(x), magnitude = bits & 0x7fffffff;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);           /* 65520 and more */
    const uint32_t exponent = magnitude >> 23 < 113 ? 113 : magnitude >> 23; /* subnormals have the smallest one */
    const float rounder = float_of_bits((exponent + 13) << 23);
    const uint32_t units = bits_of_float(float_of_bits(magnitude) + rounder) - bits_of_float(rounder);
    return (uint16_t)(sign | (((exponent - 113) << 10) + units));
}

static inline uint16_t bf16_of_float(float x)
{
    const uint32_t bits = bits_of_float(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
