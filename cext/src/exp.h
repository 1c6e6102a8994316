/* exp.h - template: exp and log1p in the vector type, over the ranges that softmax needs.
 *
 * exp(z - base) 2^-n0 for the terms of a softmax, and log1p(t) for t >= 0. The coefficients and their errors come
 * from tools/minimax.py; cext/tests holds both functions to the errors stated here. Which lanes are summed, and
 * what a row's constants are, is in sample.h. */

/* Where the two types differ: the layout of the format, and polynomials long enough for it.
 *
 * LN2_HI has 11 (float64: 15) trailing zero bits, so that n LN2_HI is exact also without a fused multiply-add.
 * EXP: exp(r) = 1 + r + r^2 q(r) for |r| <= ln(2)/2: at most 0.037 eps (float32) and 0.044 eps (float64) off, both
 * at r = -0.34; with the roundings of its evaluation 0.70 eps in all (0.80 in the scalar layer, which has no fused
 * operation). LOG: 2 atanh(s) = 2 s + s w q(w), w = s^2, |s| <= 0.1717: below 0.01 eps off. */
#ifndef SOFTXENT_EXP_CONSTANTS
#  define SOFTXENT_EXP_CONSTANTS
#  define ROUNDER_f32 0x1.8p23f /* adding it rounds to an integer, and leaves that in the low bits */
#  define ROUNDER_f64 0x1.8p52
#  define BIAS_f32 127
#  define BIAS_f64 1023
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
#  define EXP_TABLE_f64                                                                                      \
      {0x1.000000000000ap-1, 0x1.55555555554f9p-3, 0x1.55555555507f4p-5, 0x1.1111111127e06p-7,              \
       0x1.6c16c1844a104p-10, 0x1.a01a0129de8edp-13, 0x1.a01999b09d1dbp-16, 0x1.71df25cfd7bb8p-19,          \
       0x1.28adcbac204fap-22, 0x1.ad7f91096a21bp-26}
#  define LOG_TABLE_f32 {0x1.55557ap-1f, 0x1.995e7ep-2f, 0x1.31e9d2p-2f}
#  define LOG_TABLE_f64                                                                                      \
      {0x1.5555555555593p-1, 0x1.999999997f8bfp-2, 0x1.249249423cc42p-2, 0x1.c71c51c7dac79p-3,              \
       0x1.74664d245fa1ep-3, 0x1.39a037cdf3bf2p-3, 0x1.2f155c48ec514p-3}
#endif

/* How a row's logits become arguments of exp: exp(z - base) 2^-n0 is normal, and at most sqrt(2) where z is the
 * row's maximum. `rounder` adds the exponent bias and takes n0 off; x below `floor` has no normal result. */
typedef struct {
    vec base, rounder, floor;
} T(shift);

/* exp(z - base) 2^-n0; exactly 0 where that is below the normal numbers, nan where z is nan. */
SIMD_INLINE vec T(exp_shifted)(vec z, T(shift) shift)
{
    static const real coefficient[] = D(EXP_TABLE);
    const vec x = V(max)(shift.floor, V(sub)(z, shift.base));
    const vec t = V(fma)(x, V(set1)(D(LOG2E)), shift.rounder);
    const vec power = V(to_exponent)(t); /* 2^(n - n0); n - n0 = -BIAS gives 0 */
    const vec n = V(sub)(t, shift.rounder);
    vec r = V(fnma)(n, V(set1)(D(LN2_HI)), x);
    r = V(fnma)(n, V(set1)(D(LN2_LO)), r);
    vec q = V(set1)(coefficient[D(EXP_TERMS) - 1]);
    UNROLL for (int k = D(EXP_TERMS) - 2; k >= 0; --k) q = V(fma)(q, r, V(set1)(coefficient[k]));
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
    UNROLL for (int i = D(LOG_TERMS) - 2; i >= 0; --i) q = V(fma)(q, w, V(set1)(coefficient[i]));
    /* 2 s = f - s f exactly in the reals; f itself carries no error, so the correction is all that is rounded. */
    const vec log_f = V(fnma)(s, V(fnma)(w, q, f), f);
    return V(fma)(k, V(set1)(D(LN2_HI)), V(fma)(k, V(set1)(D(LN2_LO)), log_f));
}
