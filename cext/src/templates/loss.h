/* loss.h - template: the loss, the probabilities and the gradient of samples, from the statistics of their logits and
 * the sums over their targets. */

/* What is found out about the samples at hand, each in its lane. */
typedef struct {
    vec label_logit, share; /* share: what smoothing gives to each class */
    T(shift) shift;
    T(stats) stats;
    vec log_sum, lse;
    vec target_cost, target_mass, others_q; /* sum q (m - z), sum q, and that without the maxima */
} T(sample);

/* The target's sums, from those over the classes and what the label adds. */
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

/* log S, and lse = m / T + log S. `t` is NULL, for the compiler to see, where no temperature is known. */
SIMD_INLINE void T(set_lse)(T(sample) * s, const T(tempered) * t)
{
    const vec row_max = s->stats.row_max;
    s->log_sum = T(log_sum)(s->stats);
    s->lse = t ? V(fma)(row_max, t->scale, s->log_sum) : V(add)(s->log_sum, row_max);
}

/* q = (1 - e) t + share, times the class weight where there are some: the density of a target t with label smoothing e,
 * `keep` being 1 - e. Without a target it is the share alone, to which a label adds label_q. */
SIMD_INLINE vec T(smoothed)(vec t, vec keep, vec share) { return V(fma)(t, keep, share); }

/* s ((W log S + sum q (m - z)) / ln b + a lse^2). A weight of 0 makes nothing of an infinite loss. */
SIMD_INLINE vec T(loss_of)(const T(call) * c, const T(targets) * targets, const T(sample) * s)
{
    const vec zero = V(set1)(0);
    vec loss = V(fma)(s->target_mass, s->log_sum, s->target_cost);
    if (c->o.log_base != 1) loss = V(mul)(loss, V(set1)((real)(1 / c->o.log_base)));
    if (c->o.z_loss > 0) {
        const vec root = V(set1)(c->z_loss_root), z_loss = V(set1)(c->z_loss);
        loss = V(fma)(V(mul)(V(mul)(s->lse, root), z_loss), V(mul)(s->lse, root), loss);
    }
    if (c->b->sample_weight) {
        const vec of_no_weight = V(select)(V(eq)(T(abs)(loss), V(set1)((real)INFINITY)), zero, loss);
        loss = V(select)(V(eq)(targets->sample_weight, zero), of_no_weight, loss);
        loss = V(mul)(loss, targets->sample_weight);
    }
    return V(select)(targets->counted, loss, zero);
}

/* A value of each sample into `loss`. */
SIMD_INLINE void T(store_losses)(const T(call) * c, const T(targets) * targets, vec value)
{
    const softxent_block *b = c->b;
    char *first = (char *)b->loss + targets->begin * b->loss_stride * T(size_of_element)(b->loss_type);
    T(scatter)(first, b->loss_type, b->loss_stride, targets->n_samples, value);
}

/* How an output is made of the exps: times `scale`, less q times `upstream`; but where they are `top` it is `at_top`.
 * Where all of q is at the label, only the scale counts. */
typedef struct {
    vec scale, least, top, at_top, upstream;
} T(factors);

/* Of a softmax: 1 / S. At the top it is a quotient, and so exactly 1 where nothing else counts. */
SIMD_INLINE T(factors) T(softmax_factors)(T(stats) s)
{
    const vec sum_exp = T(sum_exp)(s), scale = V(div)(V(set1)(1), sum_exp);
    const T(factors) x = {scale, T(least_scaled)(scale), s.top, V(div)(s.top, sum_exp), V(set1)(0)};
    return x;
}

/* A gradient's entry where the exp is e, with what z_loss adds: it is in `scale` where that makes the entry. */
SIMD_INLINE vec T(with_z_loss)(const T(call) * c, const T(targets) * targets, const T(sample) * s, vec e, vec entry)
{
    if (!(c->o.z_loss > 0)) return entry;
    const vec p_upstream = T(times_upstream)(e, s->stats, targets->z_upstream, targets->headroom);
    return V(fma)(s->lse, p_upstream, entry);
}

/* Of a gradient: p W - q times the upstream gradient, and what z_loss adds. At the top of a confident sample both p W
 * and q may be nearly the whole. */
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

/* Without what the label adds. Where that is all of q, the entry at the label is label_entry. */
SIMD_INLINE vec T(gradient_entry)(vec e, vec q, T(factors) x, const softxent_target_kind target_kind)
{
    const vec entry = T(scaled)(e, x.scale, x.least);
    return target_kind == INDEX ? entry : V(select)(V(eq)(e, x.top), x.at_top, V(fnma)(q, x.upstream, entry));
}

/* The gradient at the label. */
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
