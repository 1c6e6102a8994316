/* loss.h - template: the loss, the probabilities and the gradient of samples, from the statistics of their logits and
 * the sums over their targets. */

/* What is found out about the samples at hand, each in its lane. */
typedef struct {
    vec label_logit, share; /* share: what smoothing gives to each class */
    T(shift) shift;
    T(stats) stats;
    vec log_sum, lse;
    vec dot, weight, others_q; /* sum q (m - z), sum q, and that without the maxima */
} T(sample);

/* The target's sums, from those over the classes and what the label adds. */
SIMD_INLINE void T(weigh)(T(sample) * s, const T(known) * k, vec label_cost, vec dot, vec top_q, vec others_q,
                          vec n_classes, const softxent_density density)
{
    const vec zero = V(set1)(0), q = k->label_q, ties = s->stats.ties;
    const mask is_max = V(eq)(s->label_logit, s->stats.row_max);
    if (density == AT_LABEL) {
        s->dot = label_cost, s->weight = q, s->others_q = zero;
        return;
    }
    if (density == EVEN) {
        dot = V(mul)(s->share, dot), top_q = V(mul)(s->share, ties);
        others_q = V(mul)(s->share, V(sub)(n_classes, ties));
    }
    s->dot = V(add)(dot, label_cost), s->others_q = V(add)(others_q, V(select)(is_max, zero, q));
    s->weight = V(add)(s->others_q, V(add)(top_q, V(select)(is_max, q, zero)));
}

/* s ((W log S + sum q (m - z)) / ln b + a lse^2). A weight of 0 makes nothing of an infinite loss. */
SIMD_INLINE vec T(loss_of)(const T(call) * c, const T(known) * k, const T(sample) * s)
{
    const vec zero = V(set1)(0);
    vec loss = V(fma)(s->weight, s->log_sum, s->dot);
    if (c->o.log_base != 1) loss = V(mul)(loss, V(set1)((real)(1 / c->o.log_base)));
    if (c->o.z_loss > 0) {
        const vec root = V(set1)(c->z_loss_root), z_loss = V(set1)(c->z_loss);
        loss = V(fma)(V(mul)(V(mul)(s->lse, root), z_loss), V(mul)(s->lse, root), loss);
    }
    if (c->b->sample_weight) {
        const vec of_no_weight = V(select)(V(eq)(T(size_of)(loss), V(set1)((real)INFINITY)), zero, loss);
        loss = V(select)(V(eq)(k->sample_weight, zero), of_no_weight, loss);
        loss = V(mul)(loss, k->sample_weight);
    }
    return V(select)(k->counted, loss, zero);
}

/* A value of each sample into `loss`. */
SIMD_INLINE void T(store_losses)(const T(call) * c, const T(known) * k, vec value)
{
    const softxent_block *b = c->b;
    char *first = (char *)b->loss + k->begin * b->loss_stride * T(size_of_element)(b->loss_type);
    T(scatter)(first, b->loss_type, b->loss_stride, k->n_samples, value);
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
SIMD_INLINE vec T(with_z_loss)(const T(call) * c, const T(known) * k, const T(sample) * s, vec e, vec entry)
{
    if (!(c->o.z_loss > 0)) return entry;
    const vec p_upstream = T(times_upstream)(e, s->stats, k->z_upstream, k->headroom);
    return V(fma)(s->lse, p_upstream, entry);
}

/* Of a gradient: p W - q times the upstream gradient, and what z_loss adds. At the top of a confident sample both p W
 * and q may be nearly the whole. */
SIMD_INLINE T(factors)
    T(gradient_factors)(const T(call) * c, const T(known) * k, const T(sample) * s, const softxent_density density)
{
    vec scale = V(mul)(s->weight, k->upstream);
    if (c->o.z_loss > 0) scale = V(fma)(s->lse, k->z_upstream, scale);
    scale = V(div)(scale, T(sum_exp)(s->stats));
    T(factors) x = {scale, T(least_scaled)(scale), scale, scale, k->upstream};
    if (density == AT_LABEL) return x;
    x.top = T(confident_top)(s->stats);
    const vec at_top = T(top_gradient)(s->stats, s->weight, s->others_q, k->upstream, k->headroom);
    x.at_top = T(with_z_loss)(c, k, s, s->stats.top, at_top);
    return x;
}

SIMD_INLINE vec T(softmax_entry)(vec e, T(factors) x)
{
    return V(select)(V(eq)(e, x.top), x.at_top, T(scaled)(e, x.scale, x.least));
}

/* Without what the label adds. Where that is all of q, the entry at the label is label_entry. */
SIMD_INLINE vec T(gradient_entry)(vec e, vec q, T(factors) x, const softxent_density density)
{
    const vec entry = T(scaled)(e, x.scale, x.least);
    return density == AT_LABEL ? entry : V(select)(V(eq)(e, x.top), x.at_top, V(fnma)(q, x.upstream, entry));
}

/* The gradient at the label. */
SIMD_INLINE vec T(label_entry)(const T(call) * c, const T(known) * k, const T(sample) * s, T(factors) x,
                               const softxent_density density)
{
    const mask is_max = V(eq)(s->label_logit, s->stats.row_max);
    const vec e = T(exp_with_top)(s->label_logit, s->stats.row_max, s->shift, 0);
    if (density != AT_LABEL) {
        const vec q = V(fma)(s->share, k->label_weight, k->label_q);
        return T(gradient_entry)(e, q, x, density);
    }
    const vec upstream = V(mul)(k->label_q, k->upstream);
    return T(with_z_loss)(c, k, s, e, T(label_gradient)(s->stats, is_max, e, upstream, k->headroom));
}
