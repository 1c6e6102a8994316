/* loss.h - template: the loss, the probabilities and the gradient of samples, from the statistics of their logits and
 * the sums over their targets. */

/* What is computed for the samples at hand, each in its lane. */
typedef struct {
    vec label_logit, share; /* share: what smoothing gives to each class */
    T(shift) shift;
    T(stats) stats;
    vec log_sum, lse;
    vec target_cost, target_mass, others_q; /* sum q (m - z); sum q; sum q over all classes but the maxima */
    vec mean_depth;                         /* sum p (m - z) / T, where it is asked for */
} T(sample);

/* Adds what the label adds (label_cost, label_q) to the target's sums over the classes. If the target is SMOOTHED, q is
 * `share` in every class: target_cost is then sum (m - z), and sums of q follow from the number of classes. */
SIMD_INLINE void T(sum_targets)(T(sample) * s, const T(targets) * targets, vec label_cost, vec target_cost, vec top_q,
                                vec others_q, vec n_classes, const softxent_target_kind target_kind)
{
    const vec zero = V(set1)(0), q = targets->label_q, n_max = s->stats.n_max;
    const mask is_max = V(eq)(s->label_logit, s->stats.row_max);
    if (target_kind == INDEX) {
        s->target_cost = label_cost, s->target_mass = q, s->others_q = zero;
        return;
    }
    if (target_kind == SMOOTHED) {
        target_cost = V(mul)(s->share, target_cost), top_q = V(mul)(s->share, n_max);
        others_q = V(mul)(s->share, V(sub)(n_classes, n_max));
    }
    s->target_cost = V(add)(target_cost, label_cost), s->others_q = V(add)(others_q, V(select)(is_max, zero, q));
    s->target_mass = V(add)(s->others_q, V(add)(top_q, V(select)(is_max, q, zero)));
}

/* lse = m / T + log S. Kernels that have no temperature pass NULL for `t`, which the compiler sees. */
SIMD_INLINE void T(set_lse)(T(sample) * s, const T(tempered) * t)
{
    const vec row_max = s->stats.row_max;
    s->log_sum = T(log_sum)(s->stats);
    s->lse = t ? V(fma)(row_max, t->scale, s->log_sum) : V(add)(s->log_sum, row_max);
}

/* q = (1 - e) t + share: the target's density q, where t is the target and e the label smoothing. `keep` is 1 - e. The
 * caller multiplies q by the class weights, if there are any. Without a target q is `share`. */
SIMD_INLINE vec T(smoothed)(vec t, vec keep, vec share) { return V(fma)(t, keep, share); }

/* A loss times its sample's weight; 0 for a sample that does not count. */
SIMD_INLINE vec T(weighted)(const T(call) * c, const T(targets) * targets, vec loss)
{
    if (c->b->sample_weight) loss = V(mul)(loss, targets->sample_weight);
    return V(select)(targets->counted, loss, V(set1)(0));
}

/* loss = s ((W log S + sum q (m - z)) / ln b + a lse^2). */
SIMD_INLINE vec T(loss_of)(const T(call) * c, const T(targets) * targets, const T(sample) * s)
{
    vec loss = V(fma)(s->target_mass, s->log_sum, s->target_cost);
    if (c->o.log_base != 1) loss = V(mul)(loss, V(set1)((real)(1 / c->o.log_base)));
    if (c->o.z_loss > 0) {
        const vec root = V(set1)(c->z_loss_root), z_loss = V(set1)(c->z_loss);
        loss = V(fma)(V(mul)(V(mul)(s->lse, root), z_loss), V(mul)(s->lse, root), loss);
    }
    return T(weighted)(c, targets, loss);
}

/* H = -sum p log p = log S + sum p (m - z) / T: both terms are 0 or more, so nothing cancels. */
SIMD_INLINE vec T(entropy_of)(const T(call) * c, const T(targets) * targets, const T(sample) * s)
{
    return T(weighted)(c, targets, V(add)(s->log_sum, s->mean_depth));
}

/* Stores one value of each sample into `loss`. */
SIMD_INLINE void T(store_losses)(const T(call) * c, const T(targets) * targets, vec value)
{
    const softxent_block *b = c->b;
    char *first = (char *)b->loss + targets->begin * b->loss_stride * T(size_of_element)(b->loss_type);
    T(scatter)(first, b->loss_type, b->loss_stride, targets->n_samples, value);
}

/* entry = e scale - q upstream: how the exp e of a class becomes its entry in the output. Where e equals `top`, the
 * entry is `at_top`. If the target kind is INDEX, only `scale` counts. `least` is least_scaled(scale). */
typedef struct {
    vec scale, least, top, at_top, upstream;
} T(factors);

/* p = e / S. At the maximum p is computed as a quotient, because a quotient is exactly 1 where no other class counts.
 * In other classes p is a product with 1 / S. */
SIMD_INLINE T(factors) T(softmax_factors)(T(stats) s)
{
    const vec sum_exp = T(sum_exp)(s), scale = V(div)(V(set1)(1), sum_exp);
    const T(factors) x = {scale, T(least_scaled)(scale), s.top, V(div)(s.top, sum_exp), V(set1)(0)};
    return x;
}

/* dH/dz_k = p_k (depth_k - mean_depth) upstream, with depth = (m - z) / T. Here `at_top` is a factor of the exp. Where
 * p_k is subnormal, depth_k is nearly BIAS: so `least` may be as much smaller. */
SIMD_INLINE T(factors) T(entropy_factors)(const T(targets) * targets, const T(sample) * s)
{
    const vec scale = V(div)(targets->upstream, T(sum_exp)(s->stats)), zero = V(set1)(0);
    const vec least = V(mul)(T(least_scaled)(scale), V(set1)((real)(1.0 / (D(BIAS) + 1))));
    const T(factors) x = {scale, least, zero, V(sub)(zero, V(mul)(scale, s->mean_depth)), zero};
    return x;
}

SIMD_INLINE vec T(entropy_entry)(vec e, vec depth, T(factors) x)
{
    return V(mul_unless)(V(lt)(e, x.least), e, V(fma)(depth, x.scale, x.at_top));
}

/* entry + z_upstream lse p, where e is the exp of the class: adds what z_loss adds to an entry. Entries that are made
 * with `scale` have it already. */
SIMD_INLINE vec T(with_z_loss)(const T(call) * c, const T(targets) * targets, const T(sample) * s, vec e, vec entry)
{
    if (!(c->o.z_loss > 0)) return entry;
    const vec p_upstream = T(times_upstream)(e, s->stats, targets->z_upstream, targets->headroom);
    return V(fma)(s->lse, p_upstream, entry);
}

/* grad = (p W - q) upstream + z_upstream lse p. At the maximum of a confident sample both p W and q may be nearly W, so
 * that p W - q would suffer cancellation: `at_top` avoids it. */
SIMD_INLINE T(factors) T(gradient_factors)(const T(call) * c, const T(targets) * targets, const T(sample) * s,
                                           const softxent_target_kind target_kind)
{
    vec scale = V(mul)(s->target_mass, targets->upstream);
    if (c->o.z_loss > 0) scale = V(fma)(s->lse, targets->z_upstream, scale);
    scale = V(div)(scale, T(sum_exp)(s->stats));
    T(factors) x = {scale, T(least_scaled)(scale), scale, scale, targets->upstream};
    if (target_kind == INDEX) return x;
    x.top = T(confident_top)(s->stats);
    const vec at_top = T(top_gradient)(s->stats, s->target_mass, s->others_q, targets->upstream, targets->headroom);
    x.at_top = T(with_z_loss)(c, targets, s, s->stats.top, at_top);
    return x;
}

SIMD_INLINE vec T(softmax_entry)(vec e, T(factors) x)
{
    return V(select)(V(eq)(e, x.top), x.at_top, T(scaled)(e, x.scale, x.least));
}

/* The gradient's entry of a class whose exp is e, without what an index label adds to q. If the target kind is INDEX,
 * the label adds all of q: then the entry at the label is label_entry. */
SIMD_INLINE vec T(gradient_entry)(vec e, vec q, T(factors) x, const softxent_target_kind target_kind)
{
    const vec entry = T(scaled)(e, x.scale, x.least);
    return target_kind == INDEX ? entry : V(select)(V(eq)(e, x.top), x.at_top, V(fnma)(q, x.upstream, entry));
}

/* The gradient's entry at the label, with all of q. */
SIMD_INLINE vec T(label_entry)(const T(call) * c, const T(targets) * targets, const T(sample) * s, T(factors) x,
                               const softxent_target_kind target_kind)
{
    const mask is_max = V(eq)(s->label_logit, s->stats.row_max);
    const vec e = T(exp_with_top)(s->label_logit, s->stats.row_max, s->shift, 0);
    if (target_kind != INDEX) {
        const vec q = V(fma)(s->share, targets->label_weight, targets->label_q);
        return T(gradient_entry)(e, q, x, target_kind);
    }
    const vec upstream = V(mul)(targets->label_q, targets->upstream);
    return T(with_z_loss)(c, targets, s, e, T(label_gradient)(s->stats, is_max, e, upstream, targets->headroom));
}
