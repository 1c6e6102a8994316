/* avx512_shim.h - <immintrin.h> for simd/avx512.h on a machine without AVX-512: SIMDe's portable 512-bit intrinsics
 * over native AVX2, FMA and F16C; and, written here lane by lane from Intel's description of the instruction, what
 * SIMDe 0.7.4-rc2 lacks or does not do exactly.
 *
 * An intrinsic that is defined neither there nor here cannot slip through: gcc's own is always_inline with a target
 * that is not switched on, which is an error. */
#ifndef AVX512_SHIM_H
#define AVX512_SHIM_H

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#  error "AVX2, FMA and F16C must be switched on before this header"
#endif
#if defined(__AVX512F__)
#  error "AVX-512 must not be switched on"
#endif

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/fma.h>
#include <simde/x86/f16c.h>
#include <simde/x86/avx512.h>

#if !defined(SIMDE_X86_FMA_NATIVE) || !defined(SIMDE_X86_AVX2_NATIVE)
#  error "SIMDe does not use the native instructions"
#endif
#if defined(SIMDE_X86_AVX512F_NATIVE) || defined(SIMDE_FAST_MATH)
#  error "SIMDe is set up wrongly"
#endif

#include <math.h>
#include <stdint.h>
#include <string.h>

#define SHIM static inline __attribute__((always_inline, unused))

typedef struct {
    float x[16];
} shim_f32x16;
typedef struct {
    double x[8];
} shim_f64x8;
typedef struct {
    uint32_t x[16];
} shim_u32x16;
typedef struct {
    uint16_t x[16];
} shim_u16x16;

/* A vector as an array, and back. */
#define SHIM_LANES(name, type, vector)                                                                                 \
    SHIM type shim_of_##name(vector v)                                                                                 \
    {                                                                                                                  \
        type a;                                                                                                        \
        memcpy(&a, &v, sizeof a);                                                                                      \
        return a;                                                                                                      \
    }                                                                                                                  \
    SHIM vector shim_to_##name(type a)                                                                                 \
    {                                                                                                                  \
        vector v;                                                                                                      \
        memcpy(&v, &a, sizeof v);                                                                                      \
        return v;                                                                                                      \
    }
SHIM_LANES(ps, shim_f32x16, __m512)
SHIM_LANES(pd, shim_f64x8, __m512d)
SHIM_LANES(epi32, shim_u32x16, __m512i)
SHIM_LANES(epi16_256, shim_u16x16, __m256i)
_Static_assert(sizeof(__m512) == 64 && sizeof(shim_f32x16) == 64 && sizeof(shim_u16x16) == 32, "sizes");

/* SIMDe has these but lacks the alias. */
#undef _mm512_shuffle_f64x2
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f64x2(a, b, imm) simde_mm512_shuffle_f64x2(a, b, imm)
#define _mm512_shuffle_f32x4(a, b, imm) simde_mm512_shuffle_f32x4(a, b, imm)

/* VMOVUPS/VMOVUPD with a mask: memory behind a clear bit is not touched, so it cannot fault. The lanes are volatile,
 * that no compiler reads or writes one of them out of turn. */
#define SHIM_MASKED(sfx, vector, real, mask_t, lanes)                                                                  \
    SHIM vector shim_mask_loadu_##sfx(vector src, mask_t k, const void *p)                                             \
    {                                                                                                                  \
        __typeof__(shim_of_##sfx(src)) r = shim_of_##sfx(src);                                                         \
        for (int i = 0; i < lanes; ++i)                                                                                \
            if (k >> i & 1) r.x[i] = ((const volatile real *)p)[i];                                                    \
        return shim_to_##sfx(r);                                                                                       \
    }                                                                                                                  \
    SHIM void shim_mask_storeu_##sfx(void *p, mask_t k, vector v)                                                      \
    {                                                                                                                  \
        const __typeof__(shim_of_##sfx(v)) r = shim_of_##sfx(v);                                                       \
        for (int i = 0; i < lanes; ++i)                                                                                \
            if (k >> i & 1) ((volatile real *)p)[i] = r.x[i];                                                          \
    }
SHIM_MASKED(ps, __m512, float, __mmask16, 16)
SHIM_MASKED(pd, __m512d, double, __mmask8, 8)
#define _mm512_mask_loadu_ps(src, k, p) shim_mask_loadu_ps(src, k, p)
#define _mm512_mask_loadu_pd(src, k, p) shim_mask_loadu_pd(src, k, p)
#define _mm512_mask_storeu_ps(p, k, v) shim_mask_storeu_ps(p, k, v)
#define _mm512_mask_storeu_pd(p, k, v) shim_mask_storeu_pd(p, k, v)

/* VCVTQQ2PD and VCVTQQ2PS. */
SHIM __m512d shim_cvtepi64_pd(__m512i v)
{
    int64_t x[8];
    shim_f64x8 r;
    memcpy(x, &v, sizeof x);
    for (int i = 0; i < 8; ++i) r.x[i] = (double)x[i];
    return shim_to_pd(r);
}
SHIM __m256 shim_cvtepi64_ps(__m512i v)
{
    int64_t x[8];
    float r[8];
    memcpy(x, &v, sizeof x);
    for (int i = 0; i < 8; ++i) r[i] = (float)x[i];
    return _mm256_loadu_ps(r);
}
#define _mm512_cvtepi64_pd(v) shim_cvtepi64_pd(v)
#define _mm512_cvtepi64_ps(v) shim_cvtepi64_ps(v)

/* VGETEXP, one lane: floor(log2 |x|) as a real, denormals normalised first; -inf for 0, inf for inf, nan for nan. */
SHIM double shim_getexp(double x)
{
    if (isnan(x)) return x + x;
    if (isinf(x)) return INFINITY;
    if (x == 0) return -INFINITY;
    int e;
    frexp(x, &e); /* |x| = m 2^e, m in [1/2, 1); exact for a float too */
    return e - 1;
}
SHIM __m512 shim_getexp_ps(__m512 v)
{
    shim_f32x16 r = shim_of_ps(v);
    for (int i = 0; i < 16; ++i) r.x[i] = (float)shim_getexp((double)r.x[i]);
    return shim_to_ps(r);
}
SHIM __m512d shim_getexp_pd(__m512d v)
{
    shim_f64x8 r = shim_of_pd(v);
    for (int i = 0; i < 8; ++i) r.x[i] = shim_getexp(r.x[i]);
    return shim_to_pd(r);
}
#define _mm512_getexp_ps(v) shim_getexp_ps(v)
#define _mm512_getexp_pd(v) shim_getexp_pd(v)

/* VSCALEF, one lane: a 2^floor(b), rounded once; the special cases as in its table, where a quiet nan in a yields to
 * an infinity in b. */
#define SHIM_SCALEF(name, real, uint, quiet_bit, floor_, scalbn_)                                                      \
    SHIM real name(real a, real b)                                                                                     \
    {                                                                                                                  \
        uint bits;                                                                                                     \
        memcpy(&bits, &a, sizeof bits);                                                                                \
        if (isnan(b) || (isnan(a) && !(bits & quiet_bit))) return isnan(a) ? a + a : b + b;                            \
        if (isnan(a)) return !isinf(b) ? a : b > 0 ? (real)INFINITY : 0;                                               \
        if (isinf(b) && b > 0) return a == 0 ? (real)NAN : (real)copysign(INFINITY, a);                                \
        if (isinf(b)) return isinf(a) ? (real)NAN : (real)copysign(0, a);                                              \
        const real whole = floor_(b);                                                                                  \
        return scalbn_(a, whole > 5000 ? 5000 : whole < -5000 ? -5000 : (int)whole);                                   \
    }
SHIM_SCALEF(shim_scalef_f32, float, uint32_t, 0x400000u, floorf, scalbnf)
SHIM_SCALEF(shim_scalef_f64, double, uint64_t, 0x8000000000000u, floor, scalbn)
SHIM __m512 shim_scalef_ps(__m512 a, __m512 b)
{
    shim_f32x16 r = shim_of_ps(a);
    const shim_f32x16 n = shim_of_ps(b);
    for (int i = 0; i < 16; ++i) r.x[i] = shim_scalef_f32(r.x[i], n.x[i]);
    return shim_to_ps(r);
}
SHIM __m512d shim_scalef_pd(__m512d a, __m512d b)
{
    shim_f64x8 r = shim_of_pd(a);
    const shim_f64x8 n = shim_of_pd(b);
    for (int i = 0; i < 8; ++i) r.x[i] = shim_scalef_f64(r.x[i], n.x[i]);
    return shim_to_pd(r);
}
#undef _mm512_scalef_ps
#undef _mm512_scalef_pd
#define _mm512_scalef_ps(a, b) shim_scalef_ps(a, b)
#define _mm512_scalef_pd(a, b) shim_scalef_pd(a, b)

/* The reductions: the upper half of the lanes onto the lower, until one is left. MAX is the instruction's: the second
 * operand where either is nan or both are zeros. Which half is the second is the compiler's choice; here as in gcc 12:
 * the lower one, but the upper one within the last 128 bits. SHIM_REDUCE_SWAP turns it round, to see whether anything
 * depends on it. */
#ifdef SHIM_REDUCE_SWAP
#  define SHIM_LOWER_FIRST(bytes) ((bytes) > 16)
#else
#  define SHIM_LOWER_FIRST(bytes) ((bytes) <= 16)
#endif
#define SHIM_MAX(a, b) ((a) > (b) ? (a) : (b))
#define SHIM_REDUCE_MAX(sfx, vector, real, lanes)                                                                      \
    SHIM real shim_reduce_max_##sfx(vector v)                                                                          \
    {                                                                                                                  \
        __typeof__(shim_of_##sfx(v)) r = shim_of_##sfx(v);                                                             \
        for (int half = lanes / 2; half > 0; half /= 2)                                                                \
            for (int i = 0; i < half; ++i) {                                                                           \
                const real lower = r.x[i], upper = r.x[i + half];                                                      \
                r.x[i] = SHIM_LOWER_FIRST(2 * half * sizeof(real)) ? SHIM_MAX(lower, upper) : SHIM_MAX(upper, lower);  \
            }                                                                                                          \
        return r.x[0];                                                                                                 \
    }
SHIM_REDUCE_MAX(ps, __m512, float, 16)
SHIM_REDUCE_MAX(pd, __m512d, double, 8)
SHIM double shim_reduce_add_pd(__m512d v)
{
    shim_f64x8 r = shim_of_pd(v);
    for (int half = 4; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) r.x[i] = r.x[i + half] + r.x[i];
    return r.x[0];
}
#define _mm512_reduce_max_ps(v) shim_reduce_max_ps(v)
#define _mm512_reduce_max_pd(v) shim_reduce_max_pd(v)
#define _mm512_reduce_add_pd(v) shim_reduce_add_pd(v)

/* Conversions. */
SHIM __m512i shim_cvtepu16_epi32(__m256i v)
{
    const shim_u16x16 a = shim_of_epi16_256(v);
    shim_u32x16 r;
    for (int i = 0; i < 16; ++i) r.x[i] = a.x[i];
    return shim_to_epi32(r);
}
SHIM __m256i shim_cvtepi32_epi16(__m512i v)
{
    const shim_u32x16 a = shim_of_epi32(v);
    shim_u16x16 r;
    for (int i = 0; i < 16; ++i) r.x[i] = (uint16_t)a.x[i];
    return shim_to_epi16_256(r);
}
SHIM __m512d shim_cvtps_pd(__m256 v)
{
    float a[8];
    shim_f64x8 r;
    memcpy(a, &v, sizeof a);
    for (int i = 0; i < 8; ++i) r.x[i] = (double)a[i];
    return shim_to_pd(r);
}
SHIM __m256 shim_extractf32x8_ps(__m512 v, int which)
{
    const shim_f32x16 a = shim_of_ps(v);
    __m256 r;
    memcpy(&r, a.x + 8 * (which & 1), sizeof r);
    return r;
}
#define _mm512_cvtepu16_epi32(v) shim_cvtepu16_epi32(v)
#define _mm512_cvtepi32_epi16(v) shim_cvtepi32_epi16(v)
#define _mm512_cvtps_pd(v) shim_cvtps_pd(v)
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps(v, which) shim_extractf32x8_ps(v, which)
#define _mm512_cvtss_f32(v) (shim_of_ps(v).x[0])
#define _mm512_cvtsd_f64(v) (shim_of_pd(v).x[0])

/* Halves: F16C's own instructions on the two halves of the vector, with gcc's builtins (SIMDe has renamed the
 * intrinsics). They are the same conversions, the EVEX forms of them. */
SHIM __m512 shim_cvtph_ps(__m256i v)
{
    typedef short v8hi __attribute__((vector_size(16)));
    v8hi half[2];
    __m256 r[2];
    __m512 joined;
    memcpy(half, &v, sizeof half);
    r[0] = __builtin_ia32_vcvtph2ps256(half[0]);
    r[1] = __builtin_ia32_vcvtph2ps256(half[1]);
    memcpy(&joined, r, sizeof joined);
    return joined;
}
SHIM __m256i shim_cvtps_ph_nearest(__m512 v)
{
    typedef short v8hi __attribute__((vector_size(16)));
    __m256 half[2];
    v8hi r[2];
    __m256i joined;
    memcpy(half, &v, sizeof half);
    r[0] = __builtin_ia32_vcvtps2ph256(half[0], 0);
    r[1] = __builtin_ia32_vcvtps2ph256(half[1], 0);
    memcpy(&joined, r, sizeof joined);
    return joined;
}
#define _mm512_cvtph_ps(v) shim_cvtph_ps(v)
/* Only the rounding that is written out here: anything else is an array of negative size. */
#define _mm512_cvtps_ph(v, imm)                                                                                        \
    ((void)sizeof(char[((imm) & 7) == _MM_FROUND_TO_NEAREST_INT ? 1 : -1]), shim_cvtps_ph_nearest(v))

#endif
