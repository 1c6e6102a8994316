/* call.h - template: what is known before any logits are read: the options, and of each sample its label, its weights
 * and its upstream gradient, in lanes. Every kernel starts from here. */

/* What the options come to, for every sample. */
typedef struct {
    const softxent_block *b;
    softxent_options o;                /* with every default spelled out */
    double scale, z_scale, hess_scale; /* what multiplies p W - q, lse p, and the Hessian's W p (1 - p) */
} T(call);

SIMD_INLINE T(call) T(call_of)(const softxent_block *b)
{
    T(call) c = {b, {sizeof c.o, NULL, 0, 0, 0, 0, 0}, 0, 0, 0};
    if (b->options) c.o = *b->options;
    if (c.o.temperature == 0) c.o.temperature = 1;
    if (c.o.log_base == 0) c.o.log_base = 1;
    const double n = (double)b->n_classes, upstream = b->grad_scale / c.o.temperature;
    c.scale = upstream / c.o.log_base, c.z_scale = upstream * 2 * c.o.z_loss;
    c.hess_scale = upstream / (c.o.log_base * c.o.temperature);
    if (b->hess && b->hess_kind == SOFTXENT_XGBOOST) c.hess_scale *= 2;
    if (b->hess && b->hess_kind == SOFTXENT_LIGHTGBM && n > 1) c.hess_scale *= n / (n - 1);
    return c;
}

/* What is known of samples is gathered for many at a time: a vector of what was just stored one by one would have to
 * wait until all earlier stores, the output's too, have left the core. */
enum { D(LABELS_READ) = 256 };
typedef struct {
    ptrdiff_t begin, end; /* the samples that are here */
    int is_bad;           /* the label of the next one is no class */
    int64_t label[D(LABELS_READ)];
    real lanes[D(LABELS_READ)]; /* the labels */
    /* Of a call in which samples have weights or gradients of their own: what T(known) has. */
    real label_q[D(LABELS_READ)], sample_weight[D(LABELS_READ)];
    real upstream[D(LABELS_READ)], z_upstream[D(LABELS_READ)], hess_upstream[D(LABELS_READ)];
} T(labels);

/* Up to LANES samples, one in each lane; or one, which is in all of them. */
typedef struct {
    ptrdiff_t begin; /* the first sample */
    int n_samples, all_counted, any_counted;
    const int64_t *label; /* of each sample the class, LABEL_NONE or LABEL_IGNORED */
    vec label_lane;       /* the same as real numbers, LABEL_IGNORED in the lanes that have no sample */
    mask counted;
    vec label_q, sample_weight; /* what the label adds to q; s */
    /* The call's scales times what is a sample's own. All five are 0 for a sample that does not count. */
    vec upstream, z_upstream, hess_upstream;
} T(known);

SIMD_INLINE vec T(if_counted)(const T(known) * k, vec x)
{
    return k->all_counted ? x : V(select)(k->counted, x, V(set1)(0));
}

SIMD_INLINE void T(no_labels)(T(labels) * l) { l->begin = l->end = l->is_bad = 0; }

SIMD_INLINE int T(has_weights)(const T(call) * c)
{
    return c->o.class_weight || c->b->sample_weight || c->b->grad_output;
}

/* Of sample number i of those that were read. */
SIMD_INLINE void T(read_weights)(T(labels) * l, const T(call) * c, int i)
{
    const softxent_block *b = c->b;
    const real *w = (const real *)c->o.class_weight, *s = (const real *)b->sample_weight;
    const real *g = (const real *)b->grad_output;
    const ptrdiff_t y = (ptrdiff_t)l->label[i], sample = l->begin + i;
    const double own = s ? s[sample * b->sample_weight_stride] : 1;
    const double all = g ? own * g[sample * b->grad_output_stride] : own;
    l->label_q[i] = (real)((1 - c->o.label_smoothing) * (y >= 0 && w ? w[y] : y >= 0));
    l->sample_weight[i] = (real)own, l->upstream[i] = (real)(c->scale * all);
    l->z_upstream[i] = (real)(c->z_scale * all), l->hess_upstream[i] = (real)(c->hess_scale * all);
}

static void K(read_labels)(T(labels) * l, const T(call) * c, ptrdiff_t begin)
{
    const softxent_block *b = c->b;
    const ptrdiff_t left = b->n_samples - begin;
    const int n = (int)(left < D(LABELS_READ) ? left : D(LABELS_READ));
    const int good = b->labels ? label_classes(b, begin, n, l->label) : n;
    for (int i = 0; i < good && !b->labels; ++i) l->label[i] = LABEL_NONE;
    for (int i = 0; i < good; ++i) l->lanes[i] = (real)l->label[i];
    l->begin = begin, l->end = begin + good, l->is_bad = good < n;
    for (int i = 0; i < good && T(has_weights)(c); ++i) T(read_weights)(l, c, i);
}

/* What was read of the samples at hand: each in its lane, or the one in all of them. */
SIMD_INLINE vec T(lanes_read)(const T(known) * k, const real *lanes, real fill, int in_rows)
{
    const vec v = V(load_till)(lanes, k->n_samples, fill);
    return in_rows ? V(set1)(V(first)(v)) : v;
}

/* The samples from `begin` on, up to n_samples, but only to the first label that is no class. With `in_rows` it is one
 * sample. `l` has no labels at first, and keeps them from call to call. */
SIMD_INLINE void T(know)(T(known) * k, T(labels) * l, const T(call) * c, ptrdiff_t begin, int n_samples, int in_rows)
{
    const softxent_block *b = c->b;
    if (begin + n_samples > l->end && !l->is_bad) K(read_labels)(l, c, begin);
    const ptrdiff_t good = l->end - begin, at = begin - l->begin;
    k->begin = begin, k->n_samples = (int)(good < n_samples ? good : n_samples);
    k->label = l->label + at;
    k->label_lane = T(lanes_read)(k, l->lanes + at, LABEL_IGNORED, in_rows);
    k->counted = V(lt)(V(set1)(LABEL_BAD), k->label_lane);
    k->any_counted = V(any)(k->counted);
    k->all_counted = !V(any)(V(eq)(k->label_lane, V(set1)(LABEL_IGNORED)));
    if (T(has_weights)(c)) {
        k->label_q = T(lanes_read)(k, l->label_q + at, 0, in_rows);
        k->sample_weight = T(lanes_read)(k, l->sample_weight + at, 0, in_rows);
        k->upstream = T(lanes_read)(k, l->upstream + at, 0, in_rows);
        k->z_upstream = T(lanes_read)(k, l->z_upstream + at, 0, in_rows);
        k->hess_upstream = T(lanes_read)(k, l->hess_upstream + at, 0, in_rows);
    } else {
        const real has_label = b->labels != NULL;
        k->label_q = V(set1)((real)(1 - c->o.label_smoothing) * has_label), k->sample_weight = V(set1)(1);
        k->upstream = V(set1)((real)c->scale), k->z_upstream = V(set1)((real)c->z_scale);
        k->hess_upstream = V(set1)((real)c->hess_scale);
    }
    k->label_q = T(if_counted)(k, k->label_q), k->sample_weight = T(if_counted)(k, k->sample_weight);
    k->upstream = T(if_counted)(k, k->upstream), k->z_upstream = T(if_counted)(k, k->z_upstream);
    k->hess_upstream = T(if_counted)(k, k->hess_upstream);
}

/* ---- What comes of it -------------------------------------------------------------------------------------------- */

/* s ((W log S + sum q (m - z)) / ln b + a lse^2). A weight of 0 makes nothing of an infinite loss. */
SIMD_INLINE vec T(loss_of)(const T(call) * c, const T(known) * k, vec weight, vec log_sum, vec dot, vec lse)
{
    const vec zero = V(set1)(0);
    vec loss = V(fma)(weight, log_sum, dot);
    if (c->o.log_base != 1) loss = V(mul)(loss, V(set1)((real)(1 / c->o.log_base)));
    if (c->o.z_loss > 0) loss = V(fma)(V(mul)(lse, V(set1)((real)c->o.z_loss)), lse, loss);
    if (c->b->sample_weight) {
        const vec of_no_weight = V(select)(V(eq)(T(size_of)(loss), V(set1)((real)INFINITY)), zero, loss);
        loss = V(select)(V(eq)(k->sample_weight, zero), of_no_weight, loss);
        loss = V(mul)(loss, k->sample_weight);
    }
    return V(select)(k->counted, loss, zero);
}

/* What multiplies the exps in an output, and what stands where the exp is the maximum's, if that is not the product. */
typedef struct {
    vec scale, least, at_top;
} T(factors);

/* Of a softmax: 1 / S. At the top it is a quotient, and so exactly 1 where nothing else counts. */
SIMD_INLINE T(factors) T(softmax_factors)(T(stats) s)
{
    const vec sum_exp = T(sum_exp)(s), scale = V(div)(V(set1)(1), sum_exp);
    const T(factors) x = {scale, T(least_scaled)(scale), V(div)(s.top, sum_exp)};
    return x;
}

SIMD_INLINE vec T(probability)(vec e, vec top, T(factors) x)
{
    return V(select)(V(eq)(e, top), x.at_top, T(scaled)(e, x.scale, x.least));
}

/* p W - q times the upstream gradient, and what z_loss adds. */
SIMD_INLINE T(factors) T(gradient_factors)(const T(call) * c, const T(known) * k, T(stats) s, vec weight, vec lse)
{
    T(factors) x;
    vec scale = V(mul)(weight, k->upstream);
    if (c->o.z_loss > 0) scale = V(fma)(lse, k->z_upstream, scale);
    x.scale = V(div)(scale, T(sum_exp)(s)), x.least = T(least_scaled)(x.scale), x.at_top = V(set1)(0);
    return x;
}

/* The gradient at the label of a sample whose q is the label's alone. */
SIMD_INLINE vec T(gradient_at_label)(const T(call) * c, const T(known) * k, T(stats) s, vec label_logit, T(shift) shift,
                                     vec lse)
{
    const mask is_max = V(eq)(label_logit, s.row_max);
    const vec e = V(select)(is_max, s.top, T(exp_shifted)(label_logit, shift, 0));
    const vec entry = T(label_gradient)(s, is_max, e, V(mul)(k->label_q, k->upstream));
    return c->o.z_loss > 0 ? V(fma)(V(mul)(lse, k->z_upstream), V(div)(e, T(sum_exp)(s)), entry) : entry;
}

/* The gradient at a confident sample's top: p W - q, where both may be nearly the whole, and what z_loss adds. */
SIMD_INLINE vec T(gradient_at_top)(const T(call) * c, const T(known) * k, T(stats) s, vec weight, vec others_q, vec lse)
{
    const vec entry = T(top_gradient)(s, weight, others_q, k->upstream);
    return c->o.z_loss > 0 ? V(fma)(V(mul)(lse, k->z_upstream), V(div)(s.top, T(sum_exp)(s)), entry) : entry;
}
