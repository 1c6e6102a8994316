/* avx512.h - the vector layer for AVX-512 F, DQ, BW and VL: 16 floats or 8 doubles. */
#include <immintrin.h>

#include "common.h"

#define HAS_ROW_KERNEL 1
enum { FUSED = 1, LANES_f32 = 16, LANES_f64 = 8 };

typedef __m512 vec_f32;
typedef __m512d vec_f64;
typedef __mmask16 mask_f32;
typedef __mmask8 mask_f64;

SIMD_INLINE __mmask16 till_f32(ptrdiff_t n)
{
    return n >= 16 ? (__mmask16)0xffff : n <= 0 ? (__mmask16)0 : (__mmask16)((1u << n) - 1);
}
SIMD_INLINE __mmask8 till_f64(ptrdiff_t n)
{
    return n >= 8 ? (__mmask8)0xff : n <= 0 ? (__mmask8)0 : (__mmask8)((1u << n) - 1);
}

SIMD_INLINE vec_f32 set1_f32(float x) { return _mm512_set1_ps(x); }
SIMD_INLINE vec_f64 set1_f64(double x) { return _mm512_set1_pd(x); }
SIMD_INLINE vec_f32 load_f32(const float *p) { return _mm512_loadu_ps(p); }
SIMD_INLINE vec_f64 load_f64(const double *p) { return _mm512_loadu_pd(p); }
SIMD_INLINE void store_f32(float *p, vec_f32 v) { _mm512_storeu_ps(p, v); }
SIMD_INLINE void store_f64(double *p, vec_f64 v) { _mm512_storeu_pd(p, v); }
SIMD_INLINE vec_f32 load_till_f32(const float *p, ptrdiff_t n, float fill)
{
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), till_f32(n), p);
}
SIMD_INLINE vec_f64 load_till_f64(const double *p, ptrdiff_t n, double fill)
{
    return _mm512_mask_loadu_pd(_mm512_set1_pd(fill), till_f64(n), p);
}
SIMD_INLINE void store_till_f32(float *p, ptrdiff_t n, vec_f32 v) { _mm512_mask_storeu_ps(p, till_f32(n), v); }
SIMD_INLINE void store_till_f64(double *p, ptrdiff_t n, vec_f64 v) { _mm512_mask_storeu_pd(p, till_f64(n), v); }

SIMD_INLINE vec_f32 add_f32(vec_f32 a, vec_f32 b) { return _mm512_add_ps(a, b); }
SIMD_INLINE vec_f64 add_f64(vec_f64 a, vec_f64 b) { return _mm512_add_pd(a, b); }
SIMD_INLINE vec_f32 sub_f32(vec_f32 a, vec_f32 b) { return _mm512_sub_ps(a, b); }
SIMD_INLINE vec_f64 sub_f64(vec_f64 a, vec_f64 b) { return _mm512_sub_pd(a, b); }
SIMD_INLINE vec_f32 mul_f32(vec_f32 a, vec_f32 b) { return _mm512_mul_ps(a, b); }
SIMD_INLINE vec_f64 mul_f64(vec_f64 a, vec_f64 b) { return _mm512_mul_pd(a, b); }
SIMD_INLINE vec_f32 div_f32(vec_f32 a, vec_f32 b) { return _mm512_div_ps(a, b); }
SIMD_INLINE vec_f64 div_f64(vec_f64 a, vec_f64 b) { return _mm512_div_pd(a, b); }
SIMD_INLINE vec_f32 fma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm512_fmadd_ps(a, b, c); }
SIMD_INLINE vec_f64 fma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return _mm512_fmadd_pd(a, b, c); }
SIMD_INLINE vec_f32 fnma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm512_fnmadd_ps(a, b, c); }
SIMD_INLINE vec_f64 fnma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return _mm512_fnmadd_pd(a, b, c); }
SIMD_INLINE vec_f32 mul_error_f32(vec_f32 a, vec_f32 b, vec_f32 p) { return _mm512_fmsub_ps(a, b, p); }
SIMD_INLINE vec_f64 mul_error_f64(vec_f64 a, vec_f64 b, vec_f64 p) { return _mm512_fmsub_pd(a, b, p); }
SIMD_INLINE vec_f32 max_f32(vec_f32 a, vec_f32 b) { return _mm512_max_ps(a, b); }
SIMD_INLINE vec_f64 max_f64(vec_f64 a, vec_f64 b) { return _mm512_max_pd(a, b); }

SIMD_INLINE mask_f32 eq_f32(vec_f32 a, vec_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
SIMD_INLINE mask_f64 eq_f64(vec_f64 a, vec_f64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
SIMD_INLINE mask_f32 lt_f32(vec_f32 a, vec_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
SIMD_INLINE mask_f64 lt_f64(vec_f64 a, vec_f64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
SIMD_INLINE vec_f32 select_f32(mask_f32 m, vec_f32 a, vec_f32 b) { return _mm512_mask_blend_ps(m, b, a); }
SIMD_INLINE vec_f64 select_f64(mask_f64 m, vec_f64 a, vec_f64 b) { return _mm512_mask_blend_pd(m, b, a); }
SIMD_INLINE int any_f32(mask_f32 m) { return m; }
SIMD_INLINE int any_f64(mask_f64 m) { return m; }
SIMD_INLINE vec_f32 add_where_f32(mask_f32 m, vec_f32 acc, vec_f32 x) { return _mm512_mask_add_ps(acc, m, acc, x); }
SIMD_INLINE vec_f64 add_where_f64(mask_f64 m, vec_f64 acc, vec_f64 x) { return _mm512_mask_add_pd(acc, m, acc, x); }
SIMD_INLINE vec_f32 add_unless_f32(mask_f32 m, vec_f32 acc, vec_f32 x)
{
    return _mm512_mask_add_ps(acc, (__mmask16)~m, acc, x);
}
SIMD_INLINE vec_f64 add_unless_f64(mask_f64 m, vec_f64 acc, vec_f64 x)
{
    return _mm512_mask_add_pd(acc, (__mmask8)~m, acc, x);
}

SIMD_INLINE vec_f32 mul_unless_f32(mask_f32 m, vec_f32 a, vec_f32 b)
{
    return _mm512_maskz_mul_ps((__mmask16)~m, a, b);
}
SIMD_INLINE vec_f64 mul_unless_f64(mask_f64 m, vec_f64 a, vec_f64 b) { return _mm512_maskz_mul_pd((__mmask8)~m, a, b); }

SIMD_INLINE vec_f32 to_exponent_f32(vec_f32 t)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t), 23));
}
SIMD_INLINE vec_f64 to_exponent_f64(vec_f64 t)
{
    return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(t), 52));
}

SIMD_INLINE vec_f32 split_f32(vec_f32 u, vec_f32 *scale)
{
    const __m512 k = _mm512_getexp_ps(_mm512_mul_ps(u, _mm512_set1_ps(1.41421356f)));
    *scale = _mm512_scalef_ps(_mm512_set1_ps(1), _mm512_sub_ps(_mm512_setzero_ps(), k));
    return k;
}
SIMD_INLINE vec_f64 split_f64(vec_f64 u, vec_f64 *scale)
{
    const __m512d k = _mm512_getexp_pd(_mm512_mul_pd(u, _mm512_set1_pd(1.4142135623730951)));
    *scale = _mm512_scalef_pd(_mm512_set1_pd(1), _mm512_sub_pd(_mm512_setzero_pd(), k));
    return k;
}

SIMD_INLINE vec_f32 widen_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
SIMD_INLINE void narrow_f16(uint16_t *p, vec_f32 v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
SIMD_INLINE vec_f32 widen_bf16(const uint16_t *p)
{
    const __m512i halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(halves, 16));
}
SIMD_INLINE void narrow_bf16(uint16_t *p, vec_f32 v)
{
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i either = _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(either, 16)));
}

SIMD_INLINE vec_f64 of_int64_f64(const int64_t *p) { return _mm512_cvtepi64_pd(_mm512_loadu_si512(p)); }
SIMD_INLINE vec_f32 of_int64_f32(const int64_t *p)
{
    const __m512 low = _mm512_castps256_ps512(_mm512_cvtepi64_ps(_mm512_loadu_si512(p)));
    return _mm512_insertf32x8(low, _mm512_cvtepi64_ps(_mm512_loadu_si512(p + 8)), 1);
}

SIMD_INLINE float first_f32(vec_f32 v) { return _mm512_cvtss_f32(v); }
SIMD_INLINE double first_f64(vec_f64 v) { return _mm512_cvtsd_f64(v); }
SIMD_INLINE float hmax_f32(vec_f32 v) { return _mm512_reduce_max_ps(v); }
SIMD_INLINE double hmax_f64(vec_f64 v) { return _mm512_reduce_max_pd(v); }
SIMD_INLINE double hsum_f64(vec_f64 v) { return _mm512_reduce_add_pd(v); }
SIMD_INLINE double hsum_f32(vec_f32 v)
{
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    return hsum_f64(_mm512_add_pd(low, _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1))));
}

SIMD_INLINE void transpose_f64(vec_f64 *r)
{
    __m512d pair[8], quad[8];
    UNROLL
    for (int i = 0; i < 8; i += 2) /* pairs of rows interleaved: columns 0 2 4 6 and 1 3 5 7 */
    {
        pair[i] = _mm512_unpacklo_pd(r[i], r[i + 1]);
        pair[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 8; i += 4) /* quarters of four rows: columns c and c + 4, then c + 2 and c + 6 */
    {
        UNROLL
        for (int c = 0; c < 2; ++c) {
            quad[i + c] = _mm512_shuffle_f64x2(pair[i + c], pair[i + 2 + c], 0x88);
            quad[i + c + 2] = _mm512_shuffle_f64x2(pair[i + c], pair[i + 2 + c], 0xdd);
        }
    }
    UNROLL
    for (int c = 0; c < 4; ++c) /* the lower and upper four rows joined */
    {
        r[c] = _mm512_shuffle_f64x2(quad[c], quad[c + 4], 0x88);
        r[c + 4] = _mm512_shuffle_f64x2(quad[c], quad[c + 4], 0xdd);
    }
}
SIMD_INLINE void transpose_f32(vec_f32 *r)
{
    __m512 a[16], b[16];
    UNROLL
    for (int i = 0; i < 16; i += 2) /* pairs of rows interleaved */
    {
        a[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4) /* b[i + c]: columns c, c + 4, c + 8, c + 12 of rows i .. i + 3 */
    {
        b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    UNROLL
    for (int i = 0; i < 16; i += 8) /* eight rows: columns c and c + 8, then c + 4 and c + 12 */
    {
        UNROLL
        for (int c = 0; c < 4; ++c) {
            a[i + c] = _mm512_shuffle_f32x4(b[i + c], b[i + 4 + c], 0x88);
            a[i + c + 4] = _mm512_shuffle_f32x4(b[i + c], b[i + 4 + c], 0xdd);
        }
    }
    UNROLL
    for (int c = 0; c < 8; ++c) /* all sixteen */
    {
        r[c] = _mm512_shuffle_f32x4(a[c], a[c + 8], 0x88);
        r[c + 8] = _mm512_shuffle_f32x4(a[c], a[c + 8], 0xdd);
    }
}
