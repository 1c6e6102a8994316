/* exp.h - template: exp and log1p in the vector type, over the ranges that softmax needs.
 *
 * exp(z - m) for the terms of a softmax with maximum m, and log1p(t) for t >= 0. The coefficients and their errors
 * come from tools/minimax.py; cext/tests holds both functions to the errors stated here. Which lanes are summed is in
 * sample.h. */

/* Where the two types differ: the layout of the format, and polynomials long enough for it.
 *
 * LN2_HI has 11 (float64: 16) trailing zero bits, so that n LN2_HI is exact also without a fused multiply-add.
 * EXP: exp(r) = 1 + r + r^2 q(r) for |r| <= ln(2)/2: at most 0.037 eps (float32) and 0.044 eps (float64) off, both
 * at r = -0.34. LOG: 2 atanh(s) = 2 s + s w q(w), w = s^2, |s| <= 0.1717: below 0.01 eps off. */
#ifndef SOFTXENT_EXP_CONSTANTS
#  define SOFTXENT_EXP_CONSTANTS
#  define ROUNDER_f32 0x1.8p23f /* adding it rounds to an integer, and leaves that in the low bits */
#  define ROUNDER_f64 0x1.8p52
#  define BIAS_f32 127
#  define BIAS_f64 1023
#  define SMALLEST_NORMAL_f32 0x1p-126f
#  define SMALLEST_NORMAL_f64 0x1p-1022
#  define LOG2E_f32 0x1.715476p+0f
#  define LOG2E_f64 0x1.71547652b82fep+0
#  define LN2_f32 0x1.62e43p-1f
#  define LN2_f64 0x1.62e42fefa39efp-1
#  define LN2_HI_f32 0x1.62ep-1f
#  define LN2_LO_f32 0x1.0bfbe8p-15f
#  define LN2_HI_f64 0x1.62e42fefap-1
#  define LN2_LO_f64 0x1.cf79abc9e3b3ap-40
enum { EXP_TERMS_f32 = 5, EXP_TERMS_f64 = 10, LOG_TERMS_f32 = 3, LOG_TERMS_f64 = 7 };
#  define EXP_TABLE_f32 {0x1.fffffcp-2f, 0x1.55549p-3f, 0x1.5558f4p-5f, 0x1.123a68p-7f, 0x1.6a2378p-10f}
#  define EXP_TABLE_f64                                                                                                \
        {0x1.000000000000ap-1,  0x1.55555555554f9p-3,  0x1.55555555507f4p-5,  0x1.1111111127e06p-7,                    \
         0x1.6c16c1844a104p-10, 0x1.a01a0129de8edp-13, 0x1.a01999b09d1dbp-16, 0x1.71df25cfd7bb8p-19,                   \
         0x1.28adcbac204fap-22, 0x1.ad7f91096a21bp-26}
#  define LOG_TABLE_f32 {0x1.55557ap-1f, 0x1.995e7ep-2f, 0x1.31e9d2p-2f}
#  define LOG_TABLE_f64                                                                                                \
        {0x1.5555555555593p-1, 0x1.999999997f8bfp-2, 0x1.249249423cc42p-2, 0x1.c71c51c7dac79p-3,                       \
         0x1.74664d245fa1ep-3, 0x1.39a037cdf3bf2p-3, 0x1.2f155c48ec514p-3}
#endif

/* x - n ln 2. With a fused multiply-add one rounded ln 2 is enough in float32: over the exponents that a row spans
 * its error is 0.02 eps for each unit of |z - m|. */
SIMD_INLINE vec T(reduced)(vec x, vec n)
{
    if (FUSED && sizeof(real) == sizeof(float)) return V(fnma)(n, V(set1)(D(LN2)), x);
    return V(fnma)(n, V(set1)(D(LN2_LO)), V(fnma)(n, V(set1)(D(LN2_HI)), x));
}

/* Exps carry a factor 2^HEADROOM, so that a term below the normal numbers still counts where 2^24 of them, or a large
 * upstream gradient, make a result that is not. */
#ifndef SOFTXENT_HEADROOM
#  define SOFTXENT_HEADROOM
enum { HEADROOM = 24, TWO_TO_HEADROOM = 1 << HEADROOM };
#endif

/* How a row's logits z become 2^HEADROOM exp(z - m) without z - m ever being rounded: that could cost several eps where
 * most of the mass lies far below m. With x = z - base, an exact difference, x = n ln 2 + a,   m - base = n0 ln 2 +
 * center,   exp(z - m) = 2^(n - n0) exp(a - center), and the small remainders lose nothing. `rounder` turns x / ln 2
 * into n, takes n0 off and adds the exponent's bias; at `floor` and below the result is 0. */
typedef struct {
    vec base, center, rounder, floor;
} T(shift);

/* |m| < 64: base is 0. Beyond, base is m, and z - m is exact wherever it matters: for z within 32 of such an m both are
 * multiples of the difference's last place. Without a finite maximum no shift makes sense, and this one leaves -inf
 * and nan what they are. */
SIMD_INLINE T(shift) T(shift_of)(vec row_max)
{
    const vec zero = V(set1)(0), rounder = V(set1)(D(ROUNDER)), bias = V(set1)(D(BIAS) + HEADROOM);
    const mask near = V(lt)(V(mul)(row_max, row_max), V(set1)(64 * 64));
    const mask finite = V(eq)(V(sub)(row_max, row_max), zero);
    const vec x = V(select)(near, row_max, zero);
    const vec n0 = V(sub)(V(fma)(x, V(set1)(D(LOG2E)), rounder), rounder);
    const vec center = T(reduced)(x, n0);
    const T(shift) shift = {
        V(select)(near, zero, V(select)(finite, row_max, zero)),
        center,
        V(sub)(V(add)(rounder, bias), n0),
        V(fma)(V(sub)(n0, bias), V(set1)(D(LN2)), center),
    };
    return shift;
}

/* 2^HEADROOM exp(z - m): exactly 2^HEADROOM at the maximum, 0 below half the smallest normal number, nan where z is
 * nan; else within 1.1 eps (1 + 0.03 (m - z)), and 0.5 eps (m - z) more where z - m is rounded: |m| >= 64, m - z > 32.
 */
SIMD_INLINE vec T(exp_shifted)(vec z, T(shift) shift)
{
    static const real coefficient[] = D(EXP_TABLE);
    const vec x = V(max)(shift.floor, V(sub)(z, shift.base));
    const vec t = V(fma)(V(sub)(x, shift.center), V(set1)(D(LOG2E)), shift.rounder);
    const vec power = V(to_exponent)(t); /* 2^(n - n0 + HEADROOM), or 0 at the floor */
    const vec r = V(sub)(T(reduced)(x, V(sub)(t, shift.rounder)), shift.center);
    vec q = V(set1)(coefficient[D(EXP_TERMS) - 1]);
    UNROLL
    for (int k = D(EXP_TERMS) - 2; k >= 0; --k) q = V(fma)(q, r, V(set1)(coefficient[k]));
    q = V(fma)(q, r, V(set1)(1));
    return V(mul)(V(fma)(q, r, V(set1)(1)), power);
}

/* log(1 + t) for t >= 0, within 2 eps; nan where t is nan.
 * 1 + t = 2^k (1 + f), f found without rounding 1 + t; log(1 + f) = 2 atanh(s), s = f / (2 + f). */
SIMD_INLINE vec T(log1p)(vec t)
{
    static const real coefficient[] = D(LOG_TABLE);
    const vec one = V(set1)(1);
    vec scale;
    const vec k = V(split)(V(add)(one, t), &scale);
    const vec f = V(fma)(t, scale, V(sub)(scale, one));
    const vec s = V(div)(f, V(add)(f, V(set1)(2)));
    const vec w = V(mul)(s, s);
    vec q = V(set1)(coefficient[D(LOG_TERMS) - 1]);
    UNROLL
    for (int i = D(LOG_TERMS) - 2; i >= 0; --i) q = V(fma)(q, w, V(set1)(coefficient[i]));
    /* 2 s = f - s f exactly in the reals; f itself carries no error, so the correction is all that is rounded. */
    const vec log_f = V(fnma)(s, V(fnma)(w, q, f), f);
    return V(fma)(k, V(set1)(D(LN2_HI)), V(fma)(k, V(set1)(D(LN2_LO)), log_f));
}
