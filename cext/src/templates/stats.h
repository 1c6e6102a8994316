/* stats.h - template: the computations of one sample, the same in every lane. All kernels are made of these pieces.
 *
 * A kernel first finds the maximum m of a sample's logits (row_max), then passes every logit through term() once, which
 * forms the sums, and finishes with the functions of `stats`. In the row kernel the lanes are classes of one sample,
 * and are summed across in between; in the lane kernel each lane is a sample of its own.
 *
 * S = sum exp(z - m). The lanes that hold the maximum are counted and are left out of the sum. This gives S - 1 without
 * a subtraction: there is no cancellation, and log S and 1 - p keep their relative precision however small they are. */

/* A compensated sum (Kahan 1965), whose error does not grow with the number of vectors. Its value is sum - carry. */
typedef struct {
    vec sum, carry;
} T(compensated);

SIMD_INLINE T(compensated) T(zero)(void)
{
    const T(compensated) zero = {V(set1)(0), V(set1)(0)};
    return zero;
}

SIMD_INLINE void T(accumulate)(T(compensated) * c, vec x)
{
    const vec y = V(sub)(x, c->carry);
    const vec sum = V(add)(c->sum, y);
    c->carry = V(sub)(V(sub)(sum, c->sum), y);
    c->sum = sum;
}

/* As accumulate(), for terms that may be infinite. The carry is then inf - inf, a nan, and is replaced by 0. */
SIMD_INLINE void T(accumulate_costs)(T(compensated) * c, vec x)
{
    T(accumulate)(c, x);
    c->carry = V(select)(V(eq)(c->carry, c->carry), c->carry, V(set1)(0));
}

SIMD_INLINE vec T(value)(T(compensated) c) { return V(sub)(c.sum, c.carry); }

/* The sum across the lanes, in every lane of the result. */
SIMD_INLINE vec T(across)(T(compensated) c) { return V(set1)((real)(V(hsum)(c.sum) - V(hsum)(c.carry))); }

/* Adds e, the exp of one logit in each lane, to `others`; where the logit is the maximum, counts it in n_max. */
SIMD_INLINE void T(count)(mask is_max, vec e, vec *others, vec *n_max)
{
    *others = V(add_unless)(is_max, *others, e);
    *n_max = V(add_where)(is_max, *n_max, V(set1)(1));
}

SIMD_INLINE vec T(term)(vec z, vec row_max, T(shift) shift, const int near, vec *others, vec *n_max)
{
    const vec e = T(exp_shifted)(z, shift, near);
    T(count)(V(eq)(z, row_max), e, others, n_max);
    return e;
}

/* As term(), and adds e (m - z) to *depth. Returns m - z in *below. */
SIMD_INLINE vec T(depth_term)(vec z, vec row_max, T(shift) shift, const int near, vec *others, vec *n_max, vec *depth,
                              vec *below)
{
    const vec x = T(shifted)(z, shift, near), e = T(exp_of_shifted)(x, shift);
    T(count)(V(eq)(z, row_max), e, others, n_max);
    *below = T(depth_of)(x, row_max, shift);
    *depth = V(fma)(e, *below, *depth);
    return e;
}

/* The exps from which an output is formed: exactly `top` wherever the logit is the maximum. So a comparison with `top`
 * finds the maxima again when the logits are not at hand. */
SIMD_INLINE vec T(with_top)(vec e, vec z, vec row_max, vec top) { return V(select)(V(eq)(z, row_max), top, e); }

SIMD_INLINE vec T(exp_with_top)(vec z, vec row_max, T(shift) shift, const int near)
{
    return T(with_top)(T(exp_shifted)(z, shift, near), z, row_max, shift.top);
}

/* What the sums leave of a sample: the maximum (row_max) and its exp (top), how many classes have the maximum (n_max),
 * and the sum of the exps of all other classes (others). */
typedef struct {
    vec row_max, top, n_max, others;
} T(stats);

/* The sums of a sample without a finite maximum become nan. There are two exceptions. logsumexp is the maximum itself
 * if no logit is nan. In OP_BEGIN all classes may be -inf, because classes elsewhere may be finite. */
SIMD_INLINE T(stats) T(stats_of)(vec row_max, vec top, vec n_max, vec others, softxent_op op)
{
    vec nan_or_0 = V(sub)(row_max, row_max);
    if (op == OP_LOGSUMEXP) nan_or_0 = V(set1)(0);
    if (op == OP_BEGIN) nan_or_0 = V(select)(V(eq)(row_max, V(set1)(-(real)INFINITY)), V(set1)(0), nan_or_0);
    const T(stats) stats = {row_max, top, n_max, V(add)(others, nan_or_0)};
    return stats;
}

/* S top: the sum of all exps, in the scale that the exps have. */
SIMD_INLINE vec T(sum_exp)(T(stats) s) { return V(fma)(s.n_max, s.top, s.others); }

/* S - 1 = (n_max - 1) + others / top, without cancellation. */
SIMD_INLINE vec T(sum_beside_one)(T(stats) s) { return V(add)(V(sub)(s.n_max, V(set1)(1)), V(div)(s.others, s.top)); }

/* log S = lse - m. */
SIMD_INLINE vec T(log_sum)(T(stats) s) { return T(log1p)(T(sum_beside_one)(s)); }

/* p upstream = (2^h p) (2^-h upstream), with p = exps / sum_exp. p may be a subnormal number, and lose digits, where
 * the product is a normal one. So p is formed 2^h times as large, which the exps are already. */
SIMD_INLINE vec T(times_upstream)(vec exps, T(stats) s, vec upstream, T(headroom) headroom)
{
    const vec quotient = V(div)(exps, V(mul)(T(sum_exp)(s), headroom.inverse));
    return V(mul)(quotient, V(mul)(upstream, headroom.inverse));
}

/* grad_y = -(1 - p_y) upstream. 1 - p_y is formed without cancellation: the exps of all classes but y, over the sum.
 * Where y is not the only maximum, these are half of the sum or more, and so e_y may be subtracted from a sum that
 * holds it. The result is subtracted from 0, so that a zero gradient is 0 and not -0. */
SIMD_INLINE vec T(label_gradient)(T(stats) s, mask is_max, vec label_exp, vec upstream, T(headroom) headroom)
{
    const vec one = V(set1)(1), zero = V(set1)(0);
    const vec maxima = V(mul)(s.top, V(sub)(s.n_max, V(select)(is_max, one, zero)));
    const vec others = V(add)(maxima, V(sub)(s.others, V(select)(is_max, zero, label_exp)));
    return V(sub)(zero, T(times_upstream)(others, s, upstream, headroom));
}

/* exps scale, but 0 where this would be a subnormal number: on many processors such a product takes a hundred times as
 * long. `least` in scaled() is least_scaled(scale). */
SIMD_INLINE vec T(least_scaled)(vec scale) { return V(div)(V(set1)(D(SMALLEST_NORMAL)), T(abs)(scale)); }

SIMD_INLINE vec T(scaled)(vec exps, vec scale, vec least) { return V(mul_unless)(V(lt)(exps, least), exps, scale); }

/* The sums over all classes of a sample; and partial sums over a few classes, which are added to them. Beside the exps
 * of all classes but the maxima, a DENSE target has three sums: target_cost = sum q (m - z), top_q = sum q over the
 * maxima, and others_q = sum q over the other classes. A SMOOTHED target has only target_cost = sum (m - z). For ITSELF
 * there is depth = sum e (m - z), with e the exps. */
typedef struct {
    T(compensated) others, target_cost, top_q, others_q, depth;
    vec n_max;
    vec n_bad; /* entries of the target that are negative or nan */
} T(sums);

typedef struct {
    vec others, target_cost, top_q, others_q, depth, n_bad;
} T(partial_sums);

SIMD_INLINE T(sums) T(no_sums)(void)
{
    const T(sums) none = {T(zero)(), T(zero)(), T(zero)(), T(zero)(), T(zero)(), V(set1)(0), V(set1)(0)};
    return none;
}

SIMD_INLINE T(partial_sums) T(no_partial_sums)(void)
{
    const vec zero = V(set1)(0);
    const T(partial_sums) none = {zero, zero, zero, zero, zero, zero};
    return none;
}

/* Counts the entries of a target that are negative or nan. */
SIMD_INLINE void T(count_bad)(vec *n_bad, vec target)
{
    *n_bad = V(add_unless)(V(lt)(V(set1)(-D(SMALLEST)), target), *n_bad, V(set1)(1));
}

/* The number of samples before the first that has a bad entry, of n_samples samples, each in its lane. */
SIMD_INLINE int T(before_bad)(vec n_bad, int n_samples)
{
    real lanes[LANES];
    int good = 0;
    if (!V(any)(V(lt)(V(set1)(0), n_bad))) return n_samples;
    V(store)(lanes, n_bad);
    while (good < n_samples && lanes[good] == 0) ++good;
    return good;
}

/* Adds one class in each lane; `below` is m - z. Where q is 0, q (m - z) counts as 0, also if z is -inf. */
SIMD_INLINE void T(add_target)(T(partial_sums) * partial, mask is_max, vec below, vec q,
                               const softxent_target_kind target_kind)
{
    if (target_kind == SMOOTHED) partial->target_cost = V(add)(partial->target_cost, below);
    if (target_kind != DENSE) return;
    partial->target_cost = V(add_unless)(V(eq)(q, V(set1)(0)), partial->target_cost, V(mul)(q, below));
    partial->top_q = V(add_where)(is_max, partial->top_q, q);
    partial->others_q = V(add_unless)(is_max, partial->others_q, q);
}

/* target_cost is infinite where q > 0 and z is -inf. */
SIMD_INLINE void T(add_partial_sums)(T(sums) * s, T(partial_sums) partial, const softxent_target_kind target_kind)
{
    T(accumulate)(&s->others, partial.others);
    if (target_kind == ITSELF) T(accumulate)(&s->depth, partial.depth);
    if (target_kind == INDEX || target_kind == ITSELF) return;
    T(accumulate_costs)(&s->target_cost, partial.target_cost);
    if (target_kind == SMOOTHED) return;
    T(accumulate)(&s->top_q, partial.top_q);
    T(accumulate)(&s->others_q, partial.others_q);
    s->n_bad = V(add)(s->n_bad, partial.n_bad);
}

/* q (m - z) of one class. */
SIMD_INLINE vec T(cost)(vec z, vec q, vec row_max)
{
    const vec zero = V(set1)(0);
    return V(select)(V(eq)(q, zero), zero, V(mul)(q, V(sub)(row_max, z)));
}

/* Whether one class has more than half of the probability of a sample: such a sample is confident. */
SIMD_INLINE mask T(is_confident)(T(stats) s) { return V(lt)(T(sum_beside_one)(s), V(set1)(1)); }

/* `top` for a confident sample, by which its maximum is recognised; nan, which equals no exp, for any other. */
SIMD_INLINE vec T(confident_top)(T(stats) s) { return V(select)(T(is_confident)(s), s.top, V(set1)((real)NAN)); }

/* p W - q = (W - q) - W (1 - p): the gradient at the maximum of a confident sample. Here both p W and q may be nearly
 * W, and p W - q would suffer cancellation. W - q (others_weight) and 1 - p are summed over the other classes instead
 * of found by subtraction. */
SIMD_INLINE vec T(top_gradient)(T(stats) s, vec weight, vec others_weight, vec upstream, T(headroom) headroom)
{
    const vec others = T(times_upstream)(s.others, s, upstream, headroom);
    return V(fnma)(weight, others, V(mul)(others_weight, upstream));
}
