/* common.h - what the vector layers share: how a function is forced inline and a small loop unrolled.
 *
 * The vector layer itself is one header per instruction set. Each defines, for X in f32 and f64: the types real_X,
 * vec_X and mask_X, the constant LANES_X, and the operations, by the same names:
 *
 *     set1 load store load_till store_till     till: the first n lanes; the others are `fill`, or stay unwritten
 *     add sub mul div                          rounded once each
 *     fma(a, b, c), fnma(a, b, c)              a b + c and c - a b: fused where FUSED is 1
 *     max(a, b)                                b where either is nan
 *     eq lt select(m, a, b) any                comparisons are false for nan; any: is some lane of the mask set
 *     add_where add_unless (m, acc, x)         acc + x in the lanes that are (not) set, acc in the others
 *     mul_unless(m, a, b)                      a b, and 0 b in the lanes that are set
 *     to_exponent(t)                           the low bits of t's mantissa, as the exponent of a power of two
 *     split(u, &scale)                         k with u 2^-k in [sqrt 1/2, sqrt 2), and scale = 2^-k, for u >= 1
 *     first hmax hsum                          lane 0; across the lanes: hsum in double, in a fixed order
 *     transpose(r)                             of LANES vectors of LANES lanes, in place
 */
#ifndef SOFTXENT_SIMD_COMMON_H
#define SOFTXENT_SIMD_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER) && !defined(__clang__)
#  define SIMD_INLINE static __forceinline
#  define UNROLL
#else
#  define SIMD_INLINE static inline __attribute__((always_inline, unused))
#  ifdef __clang__
#    define UNROLL _Pragma("clang loop unroll_count(16)")
#  else
#    define UNROLL _Pragma("GCC unroll 16")
#  endif
#endif

typedef float real_f32;
typedef double real_f64;

#endif
