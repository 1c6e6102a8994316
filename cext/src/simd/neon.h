/* neon.h - the vector layer for 64-bit Arm (Advanced SIMD): 4 floats or 2 doubles. */
#include <arm_neon.h>

#include "common.h"

#define HAS_ROW_KERNEL 1
enum { FUSED = 1, LANES_f32 = 4, LANES_f64 = 2 };

typedef float32x4_t vec_f32;
typedef float64x2_t vec_f64;
typedef uint32x4_t mask_f32;
typedef uint64x2_t mask_f64;

SIMD_INLINE vec_f32 set1_f32(float x) { return vdupq_n_f32(x); }
SIMD_INLINE vec_f64 set1_f64(double x) { return vdupq_n_f64(x); }
SIMD_INLINE vec_f32 load_f32(const float *p) { return vld1q_f32(p); }
SIMD_INLINE vec_f64 load_f64(const double *p) { return vld1q_f64(p); }
SIMD_INLINE void store_f32(float *p, vec_f32 v) { vst1q_f32(p, v); }
SIMD_INLINE void store_f64(double *p, vec_f64 v) { vst1q_f64(p, v); }

/* NEON has no masked loads. Instead, the lanes pass through a small array. */
SIMD_INLINE vec_f32 load_till_f32(const float *p, ptrdiff_t n, float fill)
{
    float lanes[4];
    for (int i = 0; i < 4; ++i) lanes[i] = i < n ? p[i] : fill;
    return vld1q_f32(lanes);
}
SIMD_INLINE vec_f64 load_till_f64(const double *p, ptrdiff_t n, double fill)
{
    double lanes[2];
    for (int i = 0; i < 2; ++i) lanes[i] = i < n ? p[i] : fill;
    return vld1q_f64(lanes);
}
SIMD_INLINE void store_till_f32(float *p, ptrdiff_t n, vec_f32 v)
{
    float lanes[4];
    vst1q_f32(lanes, v);
    for (int i = 0; i < 4 && i < n; ++i) p[i] = lanes[i];
}
SIMD_INLINE void store_till_f64(double *p, ptrdiff_t n, vec_f64 v)
{
    double lanes[2];
    vst1q_f64(lanes, v);
    for (int i = 0; i < 2 && i < n; ++i) p[i] = lanes[i];
}

SIMD_INLINE vec_f32 add_f32(vec_f32 a, vec_f32 b) { return vaddq_f32(a, b); }
SIMD_INLINE vec_f64 add_f64(vec_f64 a, vec_f64 b) { return vaddq_f64(a, b); }
SIMD_INLINE vec_f32 sub_f32(vec_f32 a, vec_f32 b) { return vsubq_f32(a, b); }
SIMD_INLINE vec_f64 sub_f64(vec_f64 a, vec_f64 b) { return vsubq_f64(a, b); }
SIMD_INLINE vec_f32 mul_f32(vec_f32 a, vec_f32 b) { return vmulq_f32(a, b); }
SIMD_INLINE vec_f64 mul_f64(vec_f64 a, vec_f64 b) { return vmulq_f64(a, b); }
SIMD_INLINE vec_f32 div_f32(vec_f32 a, vec_f32 b) { return vdivq_f32(a, b); }
SIMD_INLINE vec_f64 div_f64(vec_f64 a, vec_f64 b) { return vdivq_f64(a, b); }
SIMD_INLINE vec_f32 fma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return vfmaq_f32(c, a, b); }
SIMD_INLINE vec_f64 fma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return vfmaq_f64(c, a, b); }
SIMD_INLINE vec_f32 fnma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return vfmsq_f32(c, a, b); }
SIMD_INLINE vec_f64 fnma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return vfmsq_f64(c, a, b); }
SIMD_INLINE vec_f32 mul_error_f32(vec_f32 a, vec_f32 b, vec_f32 p) { return vnegq_f32(vfmsq_f32(p, a, b)); }
SIMD_INLINE vec_f64 mul_error_f64(vec_f64 a, vec_f64 b, vec_f64 p) { return vnegq_f64(vfmsq_f64(p, a, b)); }
/* This is not FMAX, because FMAX is nan if either argument is nan. */
SIMD_INLINE vec_f32 max_f32(vec_f32 a, vec_f32 b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
SIMD_INLINE vec_f64 max_f64(vec_f64 a, vec_f64 b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }

SIMD_INLINE mask_f32 eq_f32(vec_f32 a, vec_f32 b) { return vceqq_f32(a, b); }
SIMD_INLINE mask_f64 eq_f64(vec_f64 a, vec_f64 b) { return vceqq_f64(a, b); }
SIMD_INLINE mask_f32 lt_f32(vec_f32 a, vec_f32 b) { return vcltq_f32(a, b); }
SIMD_INLINE mask_f64 lt_f64(vec_f64 a, vec_f64 b) { return vcltq_f64(a, b); }
SIMD_INLINE vec_f32 select_f32(mask_f32 m, vec_f32 a, vec_f32 b) { return vbslq_f32(m, a, b); }
SIMD_INLINE vec_f64 select_f64(mask_f64 m, vec_f64 a, vec_f64 b) { return vbslq_f64(m, a, b); }
SIMD_INLINE int any_f32(mask_f32 m) { return vmaxvq_u32(m) != 0; }
SIMD_INLINE int any_f64(mask_f64 m) { return vmaxvq_u32(vreinterpretq_u32_u64(m)) != 0; }
SIMD_INLINE vec_f32 add_where_f32(mask_f32 m, vec_f32 acc, vec_f32 x)
{
    return vaddq_f32(acc, vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(x))));
}
SIMD_INLINE vec_f64 add_where_f64(mask_f64 m, vec_f64 acc, vec_f64 x)
{
    return vaddq_f64(acc, vreinterpretq_f64_u64(vandq_u64(m, vreinterpretq_u64_f64(x))));
}
SIMD_INLINE vec_f32 add_unless_f32(mask_f32 m, vec_f32 acc, vec_f32 x)
{
    return vaddq_f32(acc, vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), m)));
}
SIMD_INLINE vec_f64 add_unless_f64(mask_f64 m, vec_f64 acc, vec_f64 x)
{
    return vaddq_f64(acc, vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(x), m)));
}

SIMD_INLINE vec_f32 mul_unless_f32(mask_f32 m, vec_f32 a, vec_f32 b)
{
    return vmulq_f32(vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), m)), b);
}
SIMD_INLINE vec_f64 mul_unless_f64(mask_f64 m, vec_f64 a, vec_f64 b)
{
    return vmulq_f64(vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(a), m)), b);
}

SIMD_INLINE vec_f32 to_exponent_f32(vec_f32 t)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(t), 23));
}
SIMD_INLINE vec_f64 to_exponent_f64(vec_f64 t)
{
    return vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(t), 52));
}
SIMD_INLINE vec_f32 split_f32(vec_f32 u, vec_f32 *scale)
{
    const uint32x4_t biased = vshrq_n_u32(vreinterpretq_u32_f32(vmulq_n_f32(u, 1.41421356f)), 23);
    *scale = vreinterpretq_f32_u32(vshlq_n_u32(vsubq_u32(vdupq_n_u32(254), biased), 23));
    return vsubq_f32(vcvtq_f32_u32(biased), vdupq_n_f32(127));
}
SIMD_INLINE vec_f64 split_f64(vec_f64 u, vec_f64 *scale)
{
    const uint64x2_t biased = vshrq_n_u64(vreinterpretq_u64_f64(vmulq_n_f64(u, 1.4142135623730951)), 52);
    *scale = vreinterpretq_f64_u64(vshlq_n_u64(vsubq_u64(vdupq_n_u64(2046), biased), 52));
    return vsubq_f64(vcvtq_f64_u64(biased), vdupq_n_f64(1023));
}

SIMD_INLINE vec_f32 widen_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
SIMD_INLINE void narrow_f16(uint16_t *p, vec_f32 v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
SIMD_INLINE vec_f32 widen_bf16(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
SIMD_INLINE void narrow_bf16(uint16_t *p, vec_f32 v)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(v);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    vst1_u16(p, vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), rounded, quiet), 16));
}

SIMD_INLINE vec_f64 of_int64_f64(const int64_t *p) { return vcvtq_f64_s64(vld1q_s64(p)); }
SIMD_INLINE vec_f32 of_int64_f32(const int64_t *p)
{
    return vcombine_f32(vcvt_f32_f64(of_int64_f64(p)), vcvt_f32_f64(of_int64_f64(p + 2)));
}

SIMD_INLINE float first_f32(vec_f32 v) { return vgetq_lane_f32(v, 0); }
SIMD_INLINE double first_f64(vec_f64 v) { return vgetq_lane_f64(v, 0); }
SIMD_INLINE float hmax_f32(vec_f32 v) { return vmaxvq_f32(v); }
SIMD_INLINE double hmax_f64(vec_f64 v) { return vmaxvq_f64(v); }
SIMD_INLINE double hsum_f64(vec_f64 v) { return vaddvq_f64(v); }
SIMD_INLINE double hsum_f32(vec_f32 v)
{
    return vaddvq_f64(vaddq_f64(vcvt_f64_f32(vget_low_f32(v)), vcvt_high_f64_f32(v)));
}

SIMD_INLINE void transpose_f64(vec_f64 *r)
{
    const float64x2_t a = vtrn1q_f64(r[0], r[1]);
    r[1] = vtrn2q_f64(r[0], r[1]);
    r[0] = a;
}
SIMD_INLINE void transpose_f32(vec_f32 *r)
{
    const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1]));
    const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
    const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3]));
    const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
    r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c)), r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c)), r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}
