/* exp.h - template: exp, log1p and tanh in the vector type, over the ranges that softmax needs.
 *
 * The functions are exp(z - m) for the terms of a softmax with maximum m; exp((z - m) / T) with a temperature T;
 * log1p(t) for t >= 0; the softcap c tanh(x / c) and its derivative. Sums are in stats.h.
 *
 * Every function states its domain, a bound of its error, the largest error that was measured, and the argument of that
 * error. Errors are in eps of the exact result: 2^-23 in float32 and 2^-52 in float64. "Fused" is with a fused
 * multiply-add (measured with AVX2), "plain" is without (measured with the scalar layer). Unless a function says
 * otherwise, it was measured at every float32 of its domain that is not tiny (above 2^-30 in size, as a rule), and at
 * 10^7 or more random float64.
 *
 * tools/minimax.py computes the polynomials, their errors and the places of these errors. The tests that the functions
 * name are in cext/tests/test_accuracy.h. They hold the stated bounds. */

/* What differs between the two types: the layout of the format, and polynomials long enough for it.
 *
 * LN2_HI has 11 trailing zero bits (float64: 16), so that n LN2_HI is exact even without a fused multiply-add.
 *
 *     EXP: exp(r) = 1 + r + r^2 q(r),               domain |r| <= ln(2)/2
 *     LOG: 2 atanh(s) = 2 s + s w q(w),  w = s^2,   domain |s| <= 0.1717
 *
 * Maximum errors of these formulas with rounded coefficients and no other rounding, by tools/minimax.py:
 *
 *     EXP float32: 0.0366 eps at r = -0.3468        LOG float32: 0.0080 eps at s = 0.1717
 *     EXP float64: 0.0440 eps at r = -0.3359        LOG float64: 0.0070 eps at s = 0.1717
 *
 * The domains are 2^-10 wider than ln(2)/2 and (sqrt 2 - 1) / (sqrt 2 + 1), because n and k are found by rounded
 * operations. The tests of exp_shifted and log1p hold these errors together with those of the evaluation. */
#ifndef SOFTXENT_EXP_CONSTANTS
#  define SOFTXENT_EXP_CONSTANTS
#  define ROUNDER_f32 0x1.8p23f /* adding it rounds to an integer, which is then in the low bits */
#  define ROUNDER_f64 0x1.8p52
#  define BIAS_f32 127
#  define BIAS_f64 1023
#  define SMALLEST_NORMAL_f32 0x1p-126f
#  define SMALLEST_NORMAL_f64 0x1p-1022
#  define SMALLEST_f32 0x1p-149f
#  define SMALLEST_f64 0x1p-1074
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

/* x - n ln 2. Domain: integers n near x / ln 2. In float32 with a fused multiply-add, one rounded ln 2 is enough: it
 * adds an error of 0.023 eps for each unit of |x| to exp(x), and of |z - m| to exp(z - m), because the same error in
 * `top` cancels. test_exp_below_any_maximum holds that error, as a part of exp_shifted's. */
SIMD_INLINE vec T(reduced)(vec x, vec n)
{
    if (FUSED && sizeof(real) == sizeof(float)) return V(fnma)(n, V(set1)(D(LN2)), x);
    return V(fnma)(n, V(set1)(D(LN2_LO)), V(fnma)(n, V(set1)(D(LN2_HI)), x));
}

/* Exps carry a factor 2^h, the headroom, so that terms below the normal numbers still count. Many such terms, or a
 * large upstream gradient, can make a result that is a normal number. As a rule h is HEADROOM. If the upstream gradient
 * of a sample is above 2^HEADROOM, h grows with the exponent of the gradient, up to MOST_HEADROOM: this leaves room for
 * a sum of 2^31 exps. */
#ifndef SOFTXENT_HEADROOM
#  define SOFTXENT_HEADROOM
enum { HEADROOM = 24, TWO_TO_HEADROOM = 1 << HEADROOM, MOST_HEADROOM_f32 = 88, MOST_HEADROOM_f64 = 888 };
#endif
typedef struct {
    vec h, power, inverse; /* h, 2^h and 2^-h of each sample */
} T(headroom);

SIMD_INLINE T(headroom) T(headroom_of)(int h)
{
    const T(headroom) x = {V(set1)((real)h), V(set1)((real)power_of_2(h)), V(set1)((real)power_of_2(-h))};
    return x;
}

/* How a row's logits z become top exp(z - m). `top` is one number for the whole row: 2^h times a factor near 1.
 *
 *     x = z - base = n ln 2 + r,   m - base = n0 ln 2 + r0,   top = 2^h exp(r0)
 *     2^h exp(x - n0 ln 2) = 2^(n - n0 + h) exp(r) = top exp(z - m)
 *
 * The difference x is exact where it matters, and the small remainders r and r0 lose nothing. A rounded z - m could
 * cost several eps if most of the probability lies far below m. `rounder` turns x / ln 2 into n, subtracts n0, and adds
 * the bias of the exponent. At `floor` and below, the result is 0. */
typedef struct {
    vec base, rounder, floor, top;
} T(shift);

/* (exp(r) - 1 - r) / r^2, the polynomial EXP. Domain: |r| <= ln(2)/2. */
SIMD_INLINE vec T(exp_curve)(vec r)
{
    static const real coefficient[] = D(EXP_TABLE);
    vec q = V(set1)(coefficient[D(EXP_TERMS) - 1]);
    UNROLL
    for (int k = D(EXP_TERMS) - 2; k >= 0; --k) q = V(fma)(q, r, V(set1)(coefficient[k]));
    return q;
}

/* (exp(r) - 1) / r, by the polynomial EXP. Domain: |r| <= ln(2)/2. Error: at most 0.75 eps. Largest measured:
 *
 *     float32    fused 0.662 at r = 0.15405        plain 0.693 at r = 0.15722
 *     float64    fused 0.651 at r = 0.05207        plain 0.666 at r = 0.23500
 *
 * test_expm1_below_0 holds it, as a part of expm1_below_0's error. */
SIMD_INLINE vec T(exp_slope)(vec r) { return V(fma)(T(exp_curve)(r), r, V(set1)(1)); }

/* exp(r), by the polynomial EXP. Domain: |r| <= ln(2)/2. Error: at most 0.55 eps fused, and 0.75 eps plain. Largest
 * measured:
 *
 *     float32    fused 0.526 at r = -0.34609       plain 0.720 at r = -0.34521
 *     float64    fused 0.522 at r = -0.34168       plain 0.728 at r = -0.33539
 *
 * test_exp_below_any_maximum and test_exp_of_dense_arguments hold it, as a part of exp_shifted's error. */
SIMD_INLINE vec T(exp_near_0)(vec r) { return V(fma)(T(exp_slope)(r), r, V(set1)(1)); }

/* The shift of a row with maximum m. Domain: any m.
 *
 *     |m| < 64         base = 0
 *     |m| >= 64        base = m
 *     m = +inf         base = m: the exps of all finite logits become 0
 *     m = -inf, nan    base = 0: no shift makes sense
 *
 * If base is m, z - m is exact wherever it matters: for z within 32 of such an m, both are multiples of the last place
 * of the difference. A logit that is nan stays nan in each case. test_exp_at_the_edges and test_exp_shift_of_each_lane
 * hold this. */
SIMD_INLINE T(shift) T(shift_of)(vec row_max, T(headroom) headroom)
{
    const vec zero = V(set1)(0), rounder = V(set1)(D(ROUNDER)), bias = V(add)(V(set1)(D(BIAS)), headroom.h);
    const mask near = V(lt)(V(mul)(row_max, row_max), V(set1)(64 * 64));
    const mask has_logits = V(lt)(V(set1)(-(real)INFINITY), row_max);
    const vec x = V(select)(near, row_max, zero);
    const vec n0 = V(sub)(V(fma)(x, V(set1)(D(LOG2E)), rounder), rounder);
    const T(shift) shift = {
        V(select)(near, zero, V(select)(has_logits, row_max, zero)),
        V(sub)(V(add)(rounder, bias), n0),
        V(mul)(V(sub)(n0, bias), V(set1)(D(LN2))),
        V(mul)(T(exp_near_0)(T(reduced)(x, n0)), headroom.power),
    };
    return shift;
}

/* x = z - base, or `floor` for a logit so low that its exp is 0. */
SIMD_INLINE vec T(shifted)(vec z, T(shift) shift, const int near)
{
    return V(max)(shift.floor, near ? z : V(sub)(z, shift.base));
}

/* m - z, from x = shifted(z). It is finite where m is, also for a logit of -inf. */
SIMD_INLINE vec T(depth_of)(vec x, vec row_max, T(shift) shift) { return V(sub)(V(sub)(row_max, shift.base), x); }

/* top exp(z - m) of x = shifted(z): see exp_shifted. */
SIMD_INLINE vec T(exp_of_shifted)(vec x, T(shift) shift)
{
    const vec t = V(fma)(x, V(set1)(D(LOG2E)), shift.rounder);
    const vec r = T(reduced)(x, V(sub)(t, shift.rounder));
    return V(mul)(T(exp_near_0)(r), V(to_exponent)(t)); /* 2^(n - n0 + h), or 0 at the floor */
}

/* top exp(z - m), as in T(shift). Domain: z <= m, and nan, which stays nan. At z = m the result is exactly `top`. Below
 * half the smallest normal number it is 0. `near` is a constant: 1 says that base is 0.
 *
 * Error against the rounded `top`: at most 1.3 eps (1 + 0.03 (m - z)) fused, and 1.7 eps (1 + 0.03 (m - z)) plain. The
 * rounding of `top` is a part of it. If |m| >= 64 and m - z > 32, z - m is rounded, which adds at most 0.5 eps (m - z).
 * Largest measured, in eps (1 + 0.03 (m - z)):
 *
 *     m = 0, where `top` is exact: every z
 *     float32    fused 0.707 at z = -102.994       plain 0.719 at z = -5.19724
 *     float64    fused 0.595 at z = -0.39746       plain 0.727 at z = -0.33821
 *     |m| < 64: the m of the worst tops, each with random z
 *     float32    fused 1.019 at m = 63.92969, z = 62.69482         plain 1.573 at m = -5.19672, z = -5.86860
 *     float64    fused 1.151 at m = -12.81280, z = -13.55807       plain 1.453 at m = -4.49230, z = -5.26352
 *
 * test_exp_below_any_maximum holds it, at these maxima among others, and test_exp_of_dense_arguments holds 1.1 eps (1 +
 * 0.03 |z|) at m = 0. */
SIMD_INLINE vec T(exp_shifted)(vec z, T(shift) shift, const int near)
{
    return T(exp_of_shifted)(T(shifted)(z, shift, near), shift);
}

/* How a row's logits z become top exp((z - m) / T), with a temperature T. 1 / T is two reals long: scale and scale_low.
 * A product with it is two reals as well: a rounded value, and the rest, `low`. All else is as in T(shift) for the
 * logits z / T, but `base` and `floor` are in units of z. */
typedef struct {
    T(shift) shift;
    vec scale, scale_low;
    /* If T > 1, m - z may overflow where (m - z) / T does not. So m - z is formed in units of 2 if T > 1, else of 1. */
    vec unit, scale_of_unit; /* 1 / 2 or 1; and scale over unit */
    int is_one;              /* T = 1: exp_shifted does it */
} T(tempered);

SIMD_INLINE vec T(scaled_low)(vec x, vec scaled, const T(tempered) * t)
{
    return V(fma)(x, t->scale_low, V(mul_error)(x, t->scale, scaled));
}

/* (m - z) unit. Domain: z <= m. */
SIMD_INLINE vec T(units_below)(vec row_max, vec z, const T(tempered) * t)
{
    return V(fnma)(z, t->unit, V(mul)(row_max, t->unit));
}

/* What a temperature comes to: 1 / T in two reals, and the units in which m - z is formed. */
typedef struct {
    real temperature, scale, scale_low, unit;
} T(inverse);

SIMD_INLINE T(inverse) T(inverse_of)(double temperature)
{
    const double inverse = 1 / temperature;
    const vec_f64 vt = set1_f64(temperature), vi = set1_f64(inverse), product = mul_f64(vt, vi);
    /* 1 / T = inverse (1 + rest), with an error that is smaller than any real's rounding. */
    const double rest = (1 - first_f64(product)) - first_f64(mul_error_f64(vt, vi, product));
    const T(inverse) x = {(real)temperature, (real)inverse, (real)((inverse - (double)(real)inverse) + inverse * rest),
                          temperature > 1 ? (real)0.5 : 1};
    return x;
}

/* The temperatures of LANES samples. */
typedef struct {
    vec temperature, scale, scale_low, unit;
    int is_one; /* all are 1, as an option's is by default: exp_shifted does it */
} T(inverses);

SIMD_INLINE T(inverses) T(one_temperature)(double temperature)
{
    const T(inverse) x = T(inverse_of)(temperature);
    const T(inverses)
        all = {V(set1)(x.temperature), V(set1)(x.scale), V(set1)(x.scale_low), V(set1)(x.unit), temperature == 1};
    return all;
}

/* The T(tempered) of a row. Domain: any maximum, T in [2^-100, 2^100]. test_exp_tempered_at_the_edges holds it. */
SIMD_INLINE T(tempered) T(tempered_of)(vec row_max, const T(inverses) * inverse, T(headroom) headroom)
{
    T(tempered) t;
    t.scale = inverse->scale, t.scale_low = inverse->scale_low;
    t.is_one = inverse->is_one;
    t.unit = inverse->unit, t.scale_of_unit = V(div)(t.scale, t.unit);
    if (t.is_one) {
        t.shift = T(shift_of)(row_max, headroom);
        return t;
    }
    const vec zero = V(set1)(0), scaled_max = V(mul)(row_max, t.scale);
    const mask near = V(lt)(V(mul)(scaled_max, scaled_max), V(set1)(64 * 64));
    const mask has_logits = V(lt)(V(set1)(-(real)INFINITY), row_max);
    const vec x = V(select)(near, scaled_max, zero);
    const vec n0 = V(sub)(V(fma)(x, V(set1)(D(LOG2E)), V(set1)(D(ROUNDER))), V(set1)(D(ROUNDER)));
    const vec low = V(select)(near, T(scaled_low)(row_max, scaled_max, &t), zero);
    t.shift = T(shift_of)(x, headroom);
    t.shift.base = V(select)(near, zero, V(select)(has_logits, row_max, zero));
    t.shift.floor = V(mul)(t.shift.floor, inverse->temperature);
    t.shift.top = V(mul)(T(exp_near_0)(V(add)(T(reduced)(x, n0), low)), headroom.power);
    return t;
}

/* top exp((z - m) / T), as in T(tempered). Domain: that of exp_shifted. Error: at most 1.15 times that of exp_shifted
 * at (z - m) / T. Largest measured for |m / T| < 64, at random m, T and z and at the m of the worst tops, in eps (1 +
 * 0.03 (m - z) / T):
 *
 *     float32    fused 1.179 at T = 1.7, m = 105.44530, z = 105.34228
 *                plain 1.713 at T = 1.7, m = 27.73030, z = 26.54809
 *     float64    fused 1.322 at T = 1.7, m = -64.19247, z = -65.48959
 *                plain 1.607 at T = 1.7, m = 85.45440, z = 84.17484
 *
 * test_exp_tempered holds it, at the maxima of test_exp_below_any_maximum. */
SIMD_INLINE vec T(exp_tempered)(vec z, const T(tempered) * s)
{
    if (s->is_one) return T(exp_shifted)(z, s->shift, 0);
    const vec x = V(max)(s->shift.floor, V(sub)(z, s->shift.base));
    const vec scaled = V(mul)(x, s->scale), low = T(scaled_low)(x, scaled, s);
    const vec t = V(fma)(scaled, V(set1)(D(LOG2E)), s->shift.rounder);
    const vec r = V(add)(T(reduced)(scaled, V(sub)(t, s->shift.rounder)), low);
    return V(mul)(T(exp_near_0)(r), V(to_exponent)(t));
}

/* exp(y) - 1, and exp(y) in *exp_y. Domain: y <= 0, and nan, which stays nan. Error of exp(y) - 1: at most 2 eps. Error
 * of exp(y): at most 1.1 eps (1 + 0.03 |y|). exp(y) is 0 from about the smallest normal number down. Largest measured:
 *
 *     exp(y) - 1, in eps
 *     float32    fused 0.987 at y = -0.36522       plain 1.018 at y = -0.35558
 *     float64    fused 1.199 at y = -0.34825       plain 1.194 at y = -0.34913
 *     exp(y), in eps (1 + 0.03 |y|)
 *     float32    fused 0.745 at y = -80.0578       plain 0.719 at y = -5.19724
 *     float64    fused 0.711 at y = -1.03766       plain 0.744 at y = -4.50155
 *
 * test_expm1_below_0 holds both. */
SIMD_INLINE vec T(expm1_below_0)(vec y, vec *exp_y)
{
    const vec one = V(set1)(1), rounder = V(set1)(D(ROUNDER) + D(BIAS));
    const vec x = V(max)(V(set1)(-D(BIAS) * D(LN2)), y);
    const vec t = V(fma)(x, V(set1)(D(LOG2E)), rounder), power = V(to_exponent)(t);
    const vec r = T(reduced)(x, V(sub)(t, rounder));
    const vec expm1_r = V(mul)(T(exp_slope)(r), r);
    *exp_y = V(fma)(expm1_r, power, power);
    return V(fma)(expm1_r, power, V(sub)(power, one));
}

/* exp(x) - 1, and exp(x) - 1 - x, which is 0 or more, in *rest. Domain: |x| <= 2 ln(2). From exp(y) at y = x / 4, by
 * exp(2 y) - 1 - 2 y = 2 (exp(y) - 1 - y) + (exp(y) - 1)^2, twice. Error of exp(x) - 1: at most 3 eps. Error of
 * exp(x) - 1 - x, where it is a normal number: at most 5.5 eps. Largest measured, at 4 10^6 float32 and 4 10^5 float64
 * of 2^-40 and more in size:
 *
 *     exp(x) - 1
 *     float32    fused 2.422 at x = 1.10775        plain 2.422 at x = 1.10775
 *     float64    fused 2.434 at x = 0.92604        plain 2.241 at x = 0.98679
 *     exp(x) - 1 - x
 *     float32    fused 3.108 at x = 0.49318        plain 3.451 at x = 0.48452
 *     float64    fused 4.584 at x = 7.9677e-6      plain 5.067 at x = 1.9389e-6
 *
 * test_expm1_near_0 holds both. */
SIMD_INLINE vec T(expm1_near_0)(vec x, vec *rest)
{
    const vec two = V(set1)(2), y = V(mul)(x, V(set1)((real)0.25));
    vec above_line = V(mul)(V(mul)(y, y), T(exp_curve)(y)), expm1 = V(add)(y, above_line);
    for (int i = 0; i < 2; ++i) {
        above_line = V(fma)(expm1, expm1, V(mul)(two, above_line));
        expm1 = V(mul)(expm1, V(add)(two, expm1));
    }
    *rest = above_line;
    return expm1;
}

SIMD_INLINE vec T(abs)(vec x) { return V(max)(x, V(sub)(V(set1)(0), x)); }

/* c tanh(x / c), and its derivative 1 / cosh^2(x / c) in *slope. With u = x / c and E = exp(-2 |u|):
 *
 *     tanh u = (1 - E) / (1 + E),   1 / cosh^2 u = 4 E / (1 + E)^2
 *
 * Domain: all x. Infinities stay infinite, with slope 0. nan stays nan. Error: at most 4 eps, and 4 eps (1 + |u|) for
 * the slope. There are two exceptions: a subnormal u may be lost, and a slope that is nearly subnormal is 0. Largest
 * measured, for c = 1, 30, 50 (float64 also 0.01, 3, 1/3):
 *
 *     c tanh(x / c), in eps
 *     float32    fused 2.394 at c = 50, x = 8.89904        plain 2.494 at c = 30, x = 4.35944
 *     float64    fused 2.367 at c = 50, x = 9.01933        plain 2.435 at c = 3, x = 0.57201
 *     slope, in eps (1 + |u|)
 *     float32    fused 1.583 at c = 50, x = 100.6358       plain 1.557 at c = 30, x = 35.9198
 *     float64    fused 1.512 at c = 1/3, x = 0.34053       plain 1.504 at c = 30, x = 37.2913
 *
 * test_capped and test_capped_at_the_edges hold both. */
SIMD_INLINE vec T(capped)(vec x, vec cap, vec *slope)
{
    const vec zero = V(set1)(0), two = V(set1)(2), size = T(abs)(x);
    vec e;
    const vec expm1 = T(expm1_below_0)(V(div)(V(mul)(V(set1)(-2), size), cap), &e);
    const vec one_plus_e = V(add)(two, expm1);
    const vec y = V(mul)(V(div)(V(sub)(zero, expm1), one_plus_e), cap);
    *slope = V(div)(V(mul)(V(set1)(4), e), V(mul)(one_plus_e, one_plus_e));
    const vec signed_y = V(select)(V(lt)(x, zero), V(sub)(zero, y), y);
    return V(select)(V(eq)(size, V(set1)((real)INFINITY)), x, signed_y);
}

/* k ln 2 + log(1 + f), by the polynomial LOG. Domain: |f / (2 + f)| <= 0.1717. */
SIMD_INLINE vec T(log_of_parts)(vec k, vec f)
{
    static const real coefficient[] = D(LOG_TABLE);
    const vec s = V(div)(f, V(add)(f, V(set1)(2)));
    const vec w = V(mul)(s, s);
    vec q = V(set1)(coefficient[D(LOG_TERMS) - 1]);
    UNROLL
    for (int i = D(LOG_TERMS) - 2; i >= 0; --i) q = V(fma)(q, w, V(set1)(coefficient[i]));
    /* 2 s = f - s f holds exactly for real numbers. f has no error of its own: only the correction to f is rounded. */
    const vec log_f = V(fnma)(s, V(fnma)(w, q, f), f);
    return V(fma)(k, V(set1)(D(LN2_HI)), V(fma)(k, V(set1)(D(LN2_LO)), log_f));
}

/* log(1 + t), by the polynomial LOG, with k such that 1 + f is in [sqrt 1/2, sqrt 2):
 *
 *     1 + t = 2^k (1 + f),   log(1 + f) = 2 atanh(s),   s = f / (2 + f)
 *
 * f is computed without rounding 1 + t. Domain: -1 < t < 2^126 (float64: 2^1022), and nan, which stays nan. Error: at
 * most 2 eps. Largest measured for 2^-30 <= t < 2^31, which is no less than for t < 0:
 *
 *     float32    fused 1.075 at t = 0.41466        plain 1.127 at t = 0.41435
 *     float64    fused 1.317 at t = 0.41758        plain 1.337 at t = 0.41446
 *
 * test_log1p holds it. */
SIMD_INLINE vec T(log1p)(vec t)
{
    const vec one = V(set1)(1);
    vec scale;
    const vec k = V(split)(V(add)(one, t), &scale);
    return T(log_of_parts)(k, V(fma)(t, scale, V(sub)(scale, one)));
}

/* log(x). Domain: the normal numbers from SMALLEST_NORMAL to 2^64, and nan, which stays nan. Error: at most 2 eps.
 * Largest measured, at 8 10^6 float32 and 10^6 float64:
 *
 *     float32    fused 0.691 at x = 0.60588        plain 0.720 at x = 1.28699
 *     float64    fused 0.812 at x = 1.41577        plain 0.917 at x = 0.70626
 *
 * test_log holds it. */
SIMD_INLINE vec T(log)(vec x)
{
    vec scale;
    const vec k = V(split)(x, &scale);
    return T(log_of_parts)(k, V(sub)(V(mul)(x, scale), V(set1)(1)));
}
