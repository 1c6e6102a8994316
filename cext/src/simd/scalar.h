/* scalar.h - the vector layer with vectors of one lane: plain C for any processor. */
#include "common.h"

#define HAS_ROW_KERNEL 0
enum { FUSED = 0, LANES_f32 = 1, LANES_f64 = 1 };

typedef float vec_f32;
typedef double vec_f64;
typedef int mask_f32;
typedef int mask_f64;

/* These operations are written the same for both types. */
#define SCALAR_LAYER(X)                                                                                                \
    SIMD_INLINE vec_##X set1_##X(real_##X x) { return x; }                                                             \
    SIMD_INLINE vec_##X load_##X(const real_##X *p) { return *p; }                                                     \
    SIMD_INLINE void store_##X(real_##X *p, vec_##X v) { *p = v; }                                                     \
    SIMD_INLINE vec_##X load_till_##X(const real_##X *p, ptrdiff_t n, real_##X fill) { return n > 0 ? *p : fill; }     \
    SIMD_INLINE void store_till_##X(real_##X *p, ptrdiff_t n, vec_##X v)                                               \
    {                                                                                                                  \
        if (n > 0) *p = v;                                                                                             \
    }                                                                                                                  \
    SIMD_INLINE vec_##X add_##X(vec_##X a, vec_##X b) { return a + b; }                                                \
    SIMD_INLINE vec_##X sub_##X(vec_##X a, vec_##X b) { return a - b; }                                                \
    SIMD_INLINE vec_##X mul_##X(vec_##X a, vec_##X b) { return a * b; }                                                \
    SIMD_INLINE vec_##X div_##X(vec_##X a, vec_##X b) { return a / b; }                                                \
    SIMD_INLINE vec_##X fma_##X(vec_##X a, vec_##X b, vec_##X c) { return a * b + c; }                                 \
    SIMD_INLINE vec_##X fnma_##X(vec_##X a, vec_##X b, vec_##X c) { return c - a * b; }                                \
    SIMD_INLINE vec_##X max_##X(vec_##X a, vec_##X b) { return a > b ? a : b; }                                        \
    SIMD_INLINE mask_##X eq_##X(vec_##X a, vec_##X b) { return a == b; }                                               \
    SIMD_INLINE mask_##X lt_##X(vec_##X a, vec_##X b) { return a < b; }                                                \
    SIMD_INLINE vec_##X select_##X(mask_##X m, vec_##X a, vec_##X b) { return m ? a : b; }                             \
    SIMD_INLINE int any_##X(mask_##X m) { return m; }                                                                  \
    SIMD_INLINE vec_##X add_where_##X(mask_##X m, vec_##X acc, vec_##X x) { return m ? acc + x : acc; }                \
    SIMD_INLINE vec_##X add_unless_##X(mask_##X m, vec_##X acc, vec_##X x) { return m ? acc : acc + x; }               \
    SIMD_INLINE vec_##X mul_unless_##X(mask_##X m, vec_##X a, vec_##X b) { return (m ? 0 : a) * b; }                   \
    SIMD_INLINE vec_##X of_int64_##X(const int64_t *p) { return (vec_##X) * p; }                                       \
    SIMD_INLINE real_##X first_##X(vec_##X v) { return v; }                                                            \
    SIMD_INLINE real_##X hmax_##X(vec_##X v) { return v; }                                                             \
    SIMD_INLINE double hsum_##X(vec_##X v) { return v; }                                                               \
    SIMD_INLINE void transpose_##X(vec_##X *r) { (void)r; }

SCALAR_LAYER(f32)
SCALAR_LAYER(f64)
#undef SCALAR_LAYER

SIMD_INLINE vec_f32 mul_error_f32(vec_f32 a, vec_f32 b, vec_f32 p) { return (float)((double)a * b - p); }

/* The upper 26 bits of x. The rest, x - upper_half(x), is exact (Dekker 1971). */
SIMD_INLINE double upper_half(double x)
{
    const double scaled = x * 0x1.0000002p27;
    return scaled - (scaled - x);
}

SIMD_INLINE vec_f64 mul_error_f64(vec_f64 a, vec_f64 b, vec_f64 p)
{
    const double a_up = upper_half(a), a_low = a - a_up, b_up = upper_half(b), b_low = b - b_up;
    return ((a_up * b_up - p) + a_up * b_low + a_low * b_up) + a_low * b_low;
}

SIMD_INLINE vec_f32 widen_f16(const uint16_t *p) { return float_of_f16(*p); }
SIMD_INLINE vec_f32 widen_bf16(const uint16_t *p) { return float_of_bf16(*p); }
SIMD_INLINE void narrow_f16(uint16_t *p, vec_f32 v) { *p = f16_of_float(v); }
SIMD_INLINE void narrow_bf16(uint16_t *p, vec_f32 v) { *p = bf16_of_float(v); }

SIMD_INLINE vec_f32 to_exponent_f32(vec_f32 t) { return float_of_bits(bits_of_float(t) << 23); }

SIMD_INLINE vec_f64 to_exponent_f64(vec_f64 t)
{
    uint64_t bits;
    memcpy(&bits, &t, sizeof bits);
    return double_of_bits(bits << 52);
}

SIMD_INLINE vec_f32 split_f32(vec_f32 u, vec_f32 *scale)
{
    const uint32_t biased = bits_of_float(u * 1.41421356f) >> 23;
    *scale = float_of_bits((254 - biased) << 23);
    return (float)((int)biased - 127);
}

SIMD_INLINE vec_f64 split_f64(vec_f64 u, vec_f64 *scale)
{
    const double shifted = u * 1.4142135623730951;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    const uint64_t biased = bits >> 52;
    *scale = double_of_bits((2046 - biased) << 52);
    return (double)((int64_t)biased - 1023);
}
