/* stats.h - template: what is computed of one sample, in every lane. All kernels are made of these pieces.
 *
 * A kernel first finds the maximum m of a sample's logits, then passes every logit through term() once, which is
 * where the sums are formed, and finishes with the functions of `stats`. In the row kernel the lanes are classes of
 * one sample and are summed across in between; in the lane kernel each lane is a sample of its own.
 *
 * The lanes that hold the maximum are kept out of the sum and counted. So with S = sum exp(z - m), S - 1 is at hand
 * without a subtraction, and log S and 1 - p keep their relative precision however small they are. */

/* A sum of many vectors whose error does not grow with their number (Kahan 1965): the value is sum - carry. */
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

SIMD_INLINE vec T(value)(T(compensated) c) { return V(sub)(c.sum, c.carry); }

/* Across the lanes, in every lane of the result. */
SIMD_INLINE vec T(across)(T(compensated) c) { return V(set1)((real)(V(hsum)(c.sum) - V(hsum)(c.carry))); }

/* The exp of one logit of each lane is added to `others` unless it is the maximum, which is counted. */
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

/* The exps from which a gradient is formed: `top` wherever the maximum is, so that they are known again by it. */
SIMD_INLINE vec T(with_top)(vec e, vec z, vec row_max, vec top) { return V(select)(V(eq)(z, row_max), top, e); }

SIMD_INLINE vec T(exp_with_top)(vec z, vec row_max, T(shift) shift, const int near)
{
    return T(with_top)(T(exp_shifted)(z, shift, near), z, row_max, shift.top);
}

/* What the sweep over a sample leaves: the maximum and its exp, how many classes have it, and the sum of all the
 * others' exps. */
typedef struct {
    vec row_max, top, n_max, others;
} T(stats);

/* A sample without a finite maximum is nan, but for its logsumexp, which is the maximum where no logit is nan; and for
 * a part of its classes that are all -inf, as others may be finite. */
SIMD_INLINE T(stats) T(stats_of)(vec row_max, vec top, vec n_max, vec others, softxent_op op)
{
    vec nan_or_0 = V(sub)(row_max, row_max);
    if (op == OP_LOGSUMEXP) nan_or_0 = V(set1)(0);
    if (op == OP_BEGIN) nan_or_0 = V(select)(V(eq)(row_max, V(set1)(-(real)INFINITY)), V(set1)(0), nan_or_0);
    const T(stats) stats = {row_max, top, n_max, V(add)(others, nan_or_0)};
    return stats;
}

/* The sum of all exps: S, as the exps are scaled. */
SIMD_INLINE vec T(sum_exp)(T(stats) s) { return V(fma)(s.n_max, s.top, s.others); }

/* S - 1. */
SIMD_INLINE vec T(sum_beside_one)(T(stats) s) { return V(add)(V(sub)(s.n_max, V(set1)(1)), V(div)(s.others, s.top)); }

/* log S = lse - m. */
SIMD_INLINE vec T(log_sum)(T(stats) s) { return T(log1p)(T(sum_beside_one)(s)); }

/* exps / S times the upstream gradient. The quotient, a probability, may be below the normal numbers where the product
 * is not: so it is formed 2^h times as large, as the exps are, and the gradient 2^-h times. */
SIMD_INLINE vec T(times_upstream)(vec exps, T(stats) s, vec upstream, T(headroom) headroom)
{
    const vec quotient = V(div)(exps, V(mul)(T(sum_exp)(s), headroom.inverse));
    return V(mul)(quotient, V(mul)(upstream, headroom.inverse));
}

/* The gradient at the label, -(1 - p_y) times the upstream gradient: the exps of all classes but y, over the sum. Where
 * y is not the only maximum the others are half the sum or more, and e_y may be taken off. Subtracted from 0 so that
 * nothing is 0, not -0. */
SIMD_INLINE vec T(label_gradient)(T(stats) s, mask is_max, vec label_exp, vec upstream, T(headroom) headroom)
{
    const vec one = V(set1)(1), zero = V(set1)(0);
    const vec maxima = V(mul)(s.top, V(sub)(s.n_max, V(select)(is_max, one, zero)));
    const vec others = V(add)(maxima, V(sub)(s.others, V(select)(is_max, zero, label_exp)));
    return V(sub)(zero, T(times_upstream)(others, s, upstream, headroom));
}

/* exps * scale, 0 where that would be below the normal numbers: on many processors such a product takes a hundred
 * times as long. `least` is least_scaled(scale). */
SIMD_INLINE vec T(least_scaled)(vec scale) { return V(div)(V(set1)(D(SMALLEST_NORMAL)), T(abs)(scale)); }

SIMD_INLINE vec T(scaled)(vec exps, vec scale, vec least) { return V(mul_unless)(V(lt)(exps, least), exps, scale); }

/* The sums over a sample's classes; and those of a few classes, before they reach the compensated ones. Beside the exps
 * of all but the maxima a density has three: q (m - z), and q over the maxima and over the others. Of an even one the
 * sum of m - z says it all, and is kept in `dot`. */
typedef struct {
    T(compensated) others, target_cost, top_q, others_q;
    vec n_max;
    vec n_bad; /* entries of the target that are no mass */
} T(sums);

typedef struct {
    vec others, target_cost, top_q, others_q, n_bad;
} T(partial_sums);

SIMD_INLINE T(sums) T(no_sums)(void)
{
    const T(sums) none = {T(zero)(), T(zero)(), T(zero)(), T(zero)(), V(set1)(0), V(set1)(0)};
    return none;
}

SIMD_INLINE T(partial_sums) T(no_partial_sums)(void)
{
    const T(partial_sums) none = {V(set1)(0), V(set1)(0), V(set1)(0), V(set1)(0), V(set1)(0)};
    return none;
}

/* Counts the entries of a target that are negative or nan. */
SIMD_INLINE void T(count_bad)(vec *n_bad, vec target)
{
    *n_bad = V(add_unless)(V(lt)(V(set1)(-D(SMALLEST)), target), *n_bad, V(set1)(1));
}

/* Of n samples, each in its lane: how many come before the first that has a bad entry. */
SIMD_INLINE int T(before_bad)(vec n_bad, int n_samples)
{
    real lanes[LANES];
    int good = 0;
    if (!V(any)(V(lt)(V(set1)(0), n_bad))) return n_samples;
    V(store)(lanes, n_bad);
    while (good < n_samples && lanes[good] == 0) ++good;
    return good;
}

/* One class of each lane, `below` the maximum by m - z. 0 (m - z) is 0 also where z is -inf. */
SIMD_INLINE void T(add_target)(T(partial_sums) * partial, mask is_max, vec below, vec q,
                               const softxent_target_kind target_kind)
{
    if (target_kind == SMOOTHED) partial->target_cost = V(add)(partial->target_cost, below);
    if (target_kind != DENSE) return;
    partial->target_cost = V(add_unless)(V(eq)(q, V(set1)(0)), partial->target_cost, V(mul)(q, below));
    partial->top_q = V(add_where)(is_max, partial->top_q, q);
    partial->others_q = V(add_unless)(is_max, partial->others_q, q);
}

/* With q > 0 where z is -inf the sum is infinite, and has no carry: inf - inf. */
SIMD_INLINE void T(add_partial_sums)(T(sums) * s, T(partial_sums) partial, const softxent_target_kind target_kind)
{
    T(accumulate)(&s->others, partial.others);
    if (target_kind == INDEX) return;
    T(accumulate)(&s->target_cost, partial.target_cost);
    s->target_cost.carry =
        V(select)(V(eq)(s->target_cost.carry, s->target_cost.carry), s->target_cost.carry, V(set1)(0));
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

/* Whether one class has more than half of a sample's probability. */
SIMD_INLINE mask T(is_confident)(T(stats) s) { return V(lt)(T(sum_beside_one)(s), V(set1)(1)); }

/* The exp by which that class is known again; nan where there is no such. */
SIMD_INLINE vec T(confident_top)(T(stats) s) { return V(select)(T(is_confident)(s), s.top, V(set1)((real)NAN)); }

/* The gradient at the class that a confident sample has at its top: p W - q where both may be nearly the whole. Each
 * is less than its whole by what the other classes have: p W - q = (W - q) - W (1 - p), with W - q and 1 - p summed
 * over the others and not found by subtraction. */
SIMD_INLINE vec T(top_gradient)(T(stats) s, vec weight, vec others_weight, vec upstream, T(headroom) headroom)
{
    const vec others = T(times_upstream)(s.others, s, upstream, headroom);
    return V(fnma)(weight, others, V(mul)(others_weight, upstream));
}
