/* test_simd_main.h - the head and the main function of every test_simd_*.c. This file is compiled without the stamp's
 * target, because it must run even if the processor does not have the instruction set. */
#ifndef SOFTXENT_TESTS_SIMD_MAIN_H
#define SOFTXENT_TESTS_SIMD_MAIN_H

#include "arena.h"

#include <float.h>
#include <math.h>

#include "check.h"
#include "dispatch.h"
#include "half.h"
#include "wide.h"

/* The dense sweeps have so many times fewer points, for emulators. */
#ifndef THINNED
#  define THINNED 1
#endif

/* The next wider type is exact enough to judge a type. */
typedef double wide_f32;
typedef long double wide_f64;
static inline wide_f32 wide_exp_f32(wide_f32 x) { return exp(x); }
static inline wide_f64 wide_exp_f64(wide_f64 x) { return wide_exp(x); }
static inline wide_f32 wide_log1p_f32(wide_f32 x) { return log1p(x); }
static inline wide_f64 wide_log1p_f64(wide_f64 x) { return log1pl(x); }
static inline wide_f32 wide_log_f32(wide_f32 x) { return log(x); }
static inline wide_f64 wide_log_f64(wide_f64 x) { return logl(x); }
static inline wide_f32 wide_expm1_f32(wide_f32 x) { return expm1(x); }
static inline wide_f64 wide_expm1_f64(wide_f64 x) { return expm1l(x); }
static inline wide_f32 wide_tanh_f32(wide_f32 x) { return tanh(x); }
static inline wide_f64 wide_tanh_f64(wide_f64 x) { return tanhl(x); }
static inline wide_f32 wide_cosh_f32(wide_f32 x) { return cosh(x); }
static inline wide_f64 wide_cosh_f64(wide_f64 x) { return coshl(x); }
enum { IS_WIDER_f32 = 1, IS_WIDER_f64 = LDBL_MANT_DIG > DBL_MANT_DIG };

#define EPS_f32 0x1p-23
#define EPS_f64 0x1p-52
#define MIN_NORMAL_f32 0x1p-126
#define MIN_NORMAL_f64 0x1p-1022

static inline float fused_f32(float a, float b, float c) { return fmaf(a, b, c); }
static inline double fused_f64(double a, double b, double c) { return fma(a, b, c); }

typedef uint32_t bits_f32;
typedef uint64_t bits_f64;

static inline int test_simd_main(const char *isa, void (*test_simd)(void))
{
    tally.isa = isa;
    if (softxent_dispatch_find(isa) && test_simd)
        test_simd();
    else
        printf("%s: skipped, it cannot run here\n", isa);
    return report();
}

#endif
