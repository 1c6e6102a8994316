/* avx2.h - the vector layer for AVX2 with FMA and F16C: 8 floats or 4 doubles. */
#include <immintrin.h>

#include "common.h"

#define HAS_ROW_KERNEL 1
enum { FUSED = 1, LANES_f32 = 8, LANES_f64 = 4 };

typedef __m256 vec_f32, mask_f32; /* a mask is all ones or all zeros in each lane */
typedef __m256d vec_f64, mask_f64;

/* A mask of the first n lanes, loaded from a row of ones that is followed by zeros. */
SIMD_INLINE __m256i till_f32(ptrdiff_t n)
{
    static const int32_t window[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    const ptrdiff_t lanes = n < 0 ? 0 : n > 8 ? 8 : n;
    return _mm256_loadu_si256((const __m256i *)(window + 8 - lanes));
}

SIMD_INLINE __m256i till_f64(ptrdiff_t n)
{
    static const int64_t window[8] = {-1, -1, -1, -1, 0, 0, 0, 0};
    const ptrdiff_t lanes = n < 0 ? 0 : n > 4 ? 4 : n;
    return _mm256_loadu_si256((const __m256i *)(window + 4 - lanes));
}

SIMD_INLINE vec_f32 set1_f32(float x) { return _mm256_set1_ps(x); }
SIMD_INLINE vec_f64 set1_f64(double x) { return _mm256_set1_pd(x); }
SIMD_INLINE vec_f32 load_f32(const float *p) { return _mm256_loadu_ps(p); }
SIMD_INLINE vec_f64 load_f64(const double *p) { return _mm256_loadu_pd(p); }
SIMD_INLINE void store_f32(float *p, vec_f32 v) { _mm256_storeu_ps(p, v); }
SIMD_INLINE void store_f64(double *p, vec_f64 v) { _mm256_storeu_pd(p, v); }

SIMD_INLINE vec_f32 load_till_f32(const float *p, ptrdiff_t n, float fill)
{
    const __m256i m = till_f32(n);
    return _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m));
}
SIMD_INLINE vec_f64 load_till_f64(const double *p, ptrdiff_t n, double fill)
{
    const __m256i m = till_f64(n);
    return _mm256_blendv_pd(_mm256_set1_pd(fill), _mm256_maskload_pd(p, m), _mm256_castsi256_pd(m));
}
SIMD_INLINE void store_till_f32(float *p, ptrdiff_t n, vec_f32 v) { _mm256_maskstore_ps(p, till_f32(n), v); }
SIMD_INLINE void store_till_f64(double *p, ptrdiff_t n, vec_f64 v) { _mm256_maskstore_pd(p, till_f64(n), v); }

SIMD_INLINE vec_f32 add_f32(vec_f32 a, vec_f32 b) { return _mm256_add_ps(a, b); }
SIMD_INLINE vec_f64 add_f64(vec_f64 a, vec_f64 b) { return _mm256_add_pd(a, b); }
SIMD_INLINE vec_f32 sub_f32(vec_f32 a, vec_f32 b) { return _mm256_sub_ps(a, b); }
SIMD_INLINE vec_f64 sub_f64(vec_f64 a, vec_f64 b) { return _mm256_sub_pd(a, b); }
SIMD_INLINE vec_f32 mul_f32(vec_f32 a, vec_f32 b) { return _mm256_mul_ps(a, b); }
SIMD_INLINE vec_f64 mul_f64(vec_f64 a, vec_f64 b) { return _mm256_mul_pd(a, b); }
SIMD_INLINE vec_f32 div_f32(vec_f32 a, vec_f32 b) { return _mm256_div_ps(a, b); }
SIMD_INLINE vec_f64 div_f64(vec_f64 a, vec_f64 b) { return _mm256_div_pd(a, b); }
SIMD_INLINE vec_f32 fma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm256_fmadd_ps(a, b, c); }
SIMD_INLINE vec_f64 fma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return _mm256_fmadd_pd(a, b, c); }
SIMD_INLINE vec_f32 fnma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm256_fnmadd_ps(a, b, c); }
SIMD_INLINE vec_f64 fnma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return _mm256_fnmadd_pd(a, b, c); }
SIMD_INLINE vec_f32 mul_error_f32(vec_f32 a, vec_f32 b, vec_f32 p) { return _mm256_fmsub_ps(a, b, p); }
SIMD_INLINE vec_f64 mul_error_f64(vec_f64 a, vec_f64 b, vec_f64 p) { return _mm256_fmsub_pd(a, b, p); }
SIMD_INLINE vec_f32 max_f32(vec_f32 a, vec_f32 b) { return _mm256_max_ps(a, b); }
SIMD_INLINE vec_f64 max_f64(vec_f64 a, vec_f64 b) { return _mm256_max_pd(a, b); }

SIMD_INLINE mask_f32 eq_f32(vec_f32 a, vec_f32 b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
SIMD_INLINE mask_f64 eq_f64(vec_f64 a, vec_f64 b) { return _mm256_cmp_pd(a, b, _CMP_EQ_OQ); }
SIMD_INLINE mask_f32 lt_f32(vec_f32 a, vec_f32 b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
SIMD_INLINE mask_f64 lt_f64(vec_f64 a, vec_f64 b) { return _mm256_cmp_pd(a, b, _CMP_LT_OQ); }
SIMD_INLINE vec_f32 select_f32(mask_f32 m, vec_f32 a, vec_f32 b) { return _mm256_blendv_ps(b, a, m); }
SIMD_INLINE vec_f64 select_f64(mask_f64 m, vec_f64 a, vec_f64 b) { return _mm256_blendv_pd(b, a, m); }
SIMD_INLINE int any_f32(mask_f32 m) { return _mm256_movemask_ps(m); }
SIMD_INLINE int any_f64(mask_f64 m) { return _mm256_movemask_pd(m); }
SIMD_INLINE vec_f32 add_where_f32(mask_f32 m, vec_f32 acc, vec_f32 x)
{
    return _mm256_add_ps(acc, _mm256_and_ps(m, x));
}
SIMD_INLINE vec_f64 add_where_f64(mask_f64 m, vec_f64 acc, vec_f64 x)
{
    return _mm256_add_pd(acc, _mm256_and_pd(m, x));
}
SIMD_INLINE vec_f32 add_unless_f32(mask_f32 m, vec_f32 acc, vec_f32 x)
{
    return _mm256_add_ps(acc, _mm256_andnot_ps(m, x));
}
SIMD_INLINE vec_f64 add_unless_f64(mask_f64 m, vec_f64 acc, vec_f64 x)
{
    return _mm256_add_pd(acc, _mm256_andnot_pd(m, x));
}

SIMD_INLINE vec_f32 mul_unless_f32(mask_f32 m, vec_f32 a, vec_f32 b)
{
    return _mm256_mul_ps(_mm256_andnot_ps(m, a), b);
}
SIMD_INLINE vec_f64 mul_unless_f64(mask_f64 m, vec_f64 a, vec_f64 b)
{
    return _mm256_mul_pd(_mm256_andnot_pd(m, a), b);
}

SIMD_INLINE vec_f32 to_exponent_f32(vec_f32 t)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23));
}
SIMD_INLINE vec_f64 to_exponent_f64(vec_f64 t)
{
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(t), 52));
}

SIMD_INLINE vec_f32 split_f32(vec_f32 u, vec_f32 *scale)
{
    const __m256i bits = _mm256_castps_si256(_mm256_mul_ps(u, _mm256_set1_ps(1.41421356f)));
    const __m256i biased = _mm256_srli_epi32(bits, 23);
    *scale = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_sub_epi32(_mm256_set1_epi32(254), biased), 23));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(biased, _mm256_set1_epi32(127)));
}
SIMD_INLINE vec_f64 split_f64(vec_f64 u, vec_f64 *scale)
{
    const __m256i bits = _mm256_castpd_si256(_mm256_mul_pd(u, _mm256_set1_pd(1.4142135623730951)));
    const __m256i biased = _mm256_srli_epi64(bits, 52);
    *scale = _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_sub_epi64(_mm256_set1_epi64x(2046), biased), 52));
    /* AVX2 does not convert 64-bit integers. So they are put into the mantissa of 2^52, which is subtracted again. */
    const __m256d two52 = _mm256_set1_pd(0x1p52);
    const __m256d shifted = _mm256_castsi256_pd(_mm256_or_si256(biased, _mm256_castpd_si256(two52)));
    return _mm256_sub_pd(shifted, _mm256_set1_pd(0x1p52 + 1023));
}

SIMD_INLINE vec_f32 widen_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
SIMD_INLINE void narrow_f16(uint16_t *p, vec_f32 v)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
SIMD_INLINE vec_f32 widen_bf16(const uint16_t *p)
{
    const __m256i halves = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(halves, 16));
}
SIMD_INLINE void narrow_bf16(uint16_t *p, vec_f32 v)
{
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i halves = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
    const __m128i low = _mm256_castsi256_si128(halves), high = _mm256_extracti128_si256(halves, 1);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(low, high));
}

/* An integer is added to the bits of 1.5 2^52, so that it is in the low bits of a double's mantissa. */
SIMD_INLINE vec_f64 of_int64_f64(const int64_t *p)
{
    const __m256d base = _mm256_set1_pd(0x1.8p52);
    const __m256i sum = _mm256_add_epi64(_mm256_loadu_si256((const __m256i *)p), _mm256_castpd_si256(base));
    return _mm256_sub_pd(_mm256_castsi256_pd(sum), base);
}
SIMD_INLINE vec_f32 of_int64_f32(const int64_t *p)
{
    return _mm256_set_m128(_mm256_cvtpd_ps(of_int64_f64(p + 4)), _mm256_cvtpd_ps(of_int64_f64(p)));
}

SIMD_INLINE float first_f32(vec_f32 v) { return _mm256_cvtss_f32(v); }
SIMD_INLINE double first_f64(vec_f64 v) { return _mm256_cvtsd_f64(v); }
SIMD_INLINE float hmax_f32(vec_f32 v)
{
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}
SIMD_INLINE double hmax_f64(vec_f64 v)
{
    const __m128d a = _mm_max_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_max_sd(a, _mm_unpackhi_pd(a, a)));
}
SIMD_INLINE double hsum_f64(vec_f64 v)
{
    const __m128d a = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(a, _mm_unpackhi_pd(a, a)));
}
SIMD_INLINE double hsum_f32(vec_f32 v)
{
    const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
    return hsum_f64(_mm256_add_pd(low, _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))));
}

SIMD_INLINE void transpose_f64(vec_f64 *r)
{
    const __m256d a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
    const __m256d c = _mm256_unpacklo_pd(r[2], r[3]), d = _mm256_unpackhi_pd(r[2], r[3]);
    r[0] = _mm256_permute2f128_pd(a, c, 0x20), r[1] = _mm256_permute2f128_pd(b, d, 0x20);
    r[2] = _mm256_permute2f128_pd(a, c, 0x31), r[3] = _mm256_permute2f128_pd(b, d, 0x31);
}
SIMD_INLINE void transpose_f32(vec_f32 *r)
{
    __m256 pair[8], quad[8];
    UNROLL
    for (int i = 0; i < 8; i += 2) /* pairs of rows interleaved */
    {
        pair[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 8; i += 4) /* columns of four rows, in each half */
    {
        quad[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
        quad[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xee);
        quad[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
        quad[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xee);
    }
    UNROLL
    for (int i = 0; i < 4; ++i) /* halves joined */
    {
        r[i] = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x31);
    }
}
