/* call.h - template: what is known before any logits are read: the options, and of each sample its label, its weights
 * and its upstream gradient, in lanes. Every kernel starts from here. */

/* What the options come to, for every sample. */
typedef struct {
    const softxent_block *b;
    softxent_options o;                /* with every default spelled out */
    double scale, z_scale, hess_scale; /* what multiplies p W - q, lse p, and the Hessian's W p (1 - p) */
    int has_weights;                   /* samples have weights or gradients of their own */
    int has_plain_labels;              /* nothing but classes, 64 bits each, side by side; and no such weights */
} T(call);

static T(call) K(call_of)(const softxent_block *b)
{
    T(call) c = {b, {sizeof c.o, NULL, 0, 0, 0, 0, 0}, 0, 0, 0, 0, 0};
    if (b->options) c.o = *b->options;
    if (c.o.temperature == 0) c.o.temperature = 1;
    if (c.o.log_base == 0) c.o.log_base = 1;
    const double n = (double)b->n_classes, upstream = b->grad_scale / c.o.temperature;
    c.scale = upstream / c.o.log_base, c.z_scale = upstream * 2 * c.o.z_loss;
    c.hess_scale = upstream / (c.o.log_base * c.o.temperature);
    if (b->hess && b->hess_kind == SOFTXENT_XGBOOST) c.hess_scale *= 2;
    if (b->hess && b->hess_kind == SOFTXENT_LIGHTGBM && n > 1) c.hess_scale *= n / (n - 1);
    c.has_weights = c.o.class_weight || b->sample_weight || b->grad_output;
    c.has_plain_labels = b->labels && b->label_type == SOFTXENT_INT64 && b->labels_stride == 1 &&
                         !b->use_ignore_index && !c.has_weights && !b->parts;
    return c;
}

/* What smoothing gives to each class, where all are allowed. */
SIMD_INLINE vec T(even_share)(const T(call) * c)
{
    return V(set1)((real)(c->o.label_smoothing / (double)c->b->n_classes));
}

/* What is known of samples is gathered for many at a time: a vector of what was just stored one by one would have to
 * wait until all earlier stores, the output's too, have left the core. */
enum { D(LABELS_READ) = 256 };
typedef struct {
    ptrdiff_t begin, end;               /* the samples that are here */
    int is_bad;                         /* the label of the next one is no class */
    int64_t label[D(LABELS_READ) + 16]; /* and some more, to be read in vectors */
    /* Of a call in which samples have weights or gradients of their own: what T(known) has. */
    real label_weight[D(LABELS_READ)], label_q[D(LABELS_READ)], sample_weight[D(LABELS_READ)];
    real upstream[D(LABELS_READ)], z_upstream[D(LABELS_READ)], hess_upstream[D(LABELS_READ)];
} T(labels);

/* Up to LANES samples, one in each lane; or one, which is in all of them. */
typedef struct {
    ptrdiff_t begin; /* the first sample */
    int n_samples, all_counted, any_counted;
    int is_plain; /* all count, and have the call's own weights, which are below */
    /* Of each sample the class, LABEL_NONE or LABEL_IGNORED: NULL where they are in lanes alone; and as real numbers,
     * LABEL_IGNORED in the lanes that have no sample. */
    const int64_t *label;
    vec label_lane;
    mask counted;
    vec label_weight, label_q; /* w at the label; what the label adds to q */
    vec sample_weight;
    /* The call's scales times what is a sample's own. All five are 0 for a sample that does not count. */
    vec upstream, z_upstream, hess_upstream;
} T(known);

SIMD_INLINE vec T(if_counted)(const T(known) * k, vec x)
{
    return k->all_counted ? x : V(select)(k->counted, x, V(set1)(0));
}

SIMD_INLINE void T(no_labels)(T(labels) * l) { l->begin = l->end = l->is_bad = 0; }

/* Of sample number i of those that were read. */
SIMD_INLINE void T(read_weights)(T(labels) * l, const T(call) * c, int i)
{
    const softxent_block *b = c->b;
    const real *w = (const real *)c->o.class_weight, *s = (const real *)b->sample_weight;
    const real *g = (const real *)b->grad_output;
    const ptrdiff_t y = (ptrdiff_t)l->label[i], sample = l->begin + i;
    const double own = s ? s[sample * b->sample_weight_stride] : 1;
    const double all = g ? own * g[sample * b->grad_output_stride] : own;
    const double weight = y >= 0 && w ? w[y] : b->labels != NULL; /* also of a class that is not here */
    l->label_weight[i] = (real)weight, l->label_q[i] = (real)((1 - c->o.label_smoothing) * weight);
    l->sample_weight[i] = (real)own, l->upstream[i] = (real)(c->scale * all);
    l->z_upstream[i] = (real)(c->z_scale * all), l->hess_upstream[i] = (real)(c->hess_scale * all);
}

/* Asks for n labels that lie side by side. */
SIMD_INLINE void T(prefetch_labels)(const softxent_block *b, ptrdiff_t begin, int n)
{
    const ptrdiff_t size = (ptrdiff_t)1 << b->label_type % 4; /* int8 to int64, uint8 to uint64 */
    const char *first = (const char *)b->labels + begin * size;
    for (ptrdiff_t i = 0; i < n * size && b->labels_stride == 1; i += CACHE_LINE) PREFETCH(first + i);
}

static void K(read_labels)(T(labels) * l, const T(call) * c, ptrdiff_t begin)
{
    const softxent_block *b = c->b;
    const ptrdiff_t left = b->n_samples - begin;
    const int n = (int)(left < D(LABELS_READ) ? left : D(LABELS_READ));
    const int good = b->labels ? label_classes(b, begin, n, l->label) : n;
    if (b->labels) T(prefetch_labels)(b, begin + n, n);
    for (int i = 0; i < good && !b->labels; ++i) l->label[i] = LABEL_NONE;
    l->begin = begin, l->end = begin + good, l->is_bad = good < n;
    for (int i = 0; i < good && c->has_weights; ++i) T(read_weights)(l, c, i);
}

/* What was read of the samples at hand: each in its lane, or the one in all of them. */
SIMD_INLINE vec T(lanes_read)(const T(known) * k, const real *lanes, real fill, int in_rows)
{
    const vec v = V(load_till)(lanes, k->n_samples, fill);
    return in_rows ? V(set1)(V(first)(v)) : v;
}

SIMD_INLINE vec T(label_lanes)(const T(known) * k, int in_rows)
{
    const vec v = V(of_int64)(k->label);
    if (in_rows) return V(set1)(V(first)(v));
    return k->n_samples == LANES ? v : T(first_lanes)(v, k->n_samples, LABEL_IGNORED);
}

/* What is a sample's own where all are alike. */
SIMD_INLINE void T(know_call)(T(known) * k, const T(call) * c)
{
    const real has_label = c->b->labels != NULL;
    k->label_weight = V(set1)(has_label), k->sample_weight = V(set1)(1);
    k->label_q = V(set1)((real)(1 - c->o.label_smoothing) * has_label);
    k->upstream = V(set1)((real)c->scale), k->z_upstream = V(set1)((real)c->z_scale);
    k->hess_upstream = V(set1)((real)c->hess_scale);
}

SIMD_INLINE void T(know_weights)(T(known) * k, const T(labels) * l, ptrdiff_t at, int in_rows)
{
    k->label_weight = T(lanes_read)(k, l->label_weight + at, 0, in_rows);
    k->label_q = T(lanes_read)(k, l->label_q + at, 0, in_rows);
    k->sample_weight = T(lanes_read)(k, l->sample_weight + at, 0, in_rows);
    k->upstream = T(lanes_read)(k, l->upstream + at, 0, in_rows);
    k->z_upstream = T(lanes_read)(k, l->z_upstream + at, 0, in_rows);
    k->hess_upstream = T(lanes_read)(k, l->hess_upstream + at, 0, in_rows);
}

SIMD_INLINE void T(know_nothing)(T(known) * k) { k->is_plain = 0; }

/* The samples from `begin` on, up to n_samples, but only to the first label that is no class. With `in_rows` it is one
 * sample. `l` has no labels at first, and keeps them from call to call. */
static void K(know)(T(known) * k, T(labels) * l, const T(call) * c, ptrdiff_t begin, int n_samples, int in_rows)
{
    if (begin + n_samples > l->end && !l->is_bad) K(read_labels)(l, c, begin);
    const ptrdiff_t good = l->end - begin, at = begin - l->begin;
    k->begin = begin, k->n_samples = (int)(good < n_samples ? good : n_samples);
    k->label = l->label + at;
    k->label_lane = T(label_lanes)(k, in_rows);
    k->counted = V(lt)(V(set1)(LABEL_BAD), k->label_lane);
    k->any_counted = V(any)(k->counted);
    k->all_counted = !V(any)(V(eq)(k->label_lane, V(set1)(LABEL_IGNORED)));
    if (c->has_weights)
        T(know_weights)(k, l, at, in_rows);
    else if (!k->is_plain)
        T(know_call)(k, c);
    k->is_plain = k->all_counted && !c->has_weights;
    k->label_q = T(if_counted)(k, k->label_q), k->sample_weight = T(if_counted)(k, k->sample_weight);
    k->upstream = T(if_counted)(k, k->upstream), k->z_upstream = T(if_counted)(k, k->z_upstream);
    k->hess_upstream = T(if_counted)(k, k->hess_upstream);
}

/* The same for LANES samples with plain labels, where these are needed in lanes alone. Whether all are classes: else
 * nothing is known. */
SIMD_INLINE int T(know_at_once)(T(known) * k, const T(call) * c, ptrdiff_t begin)
{
    const int64_t *labels = (const int64_t *)c->b->labels + begin;
    const vec label = V(of_int64)(labels), zero = V(set1)(0), one = V(set1)(1);
    const vec beyond = V(select)(V(lt)(label, V(set1)((real)c->b->n_classes)), zero, one);
    const vec is_bad = V(select)(V(lt)(V(set1)(-1), label), beyond, one); /* also what is not even a number */
    PREFETCH(labels + D(LABELS_READ));
    if (LANES * sizeof *labels > CACHE_LINE) PREFETCH(labels + D(LABELS_READ) + CACHE_LINE / sizeof *labels);
    if (V(any)(V(lt)(zero, is_bad))) return 0;
    if (!k->is_plain) T(know_call)(k, c);
    k->begin = begin, k->n_samples = LANES, k->all_counted = k->any_counted = k->is_plain = 1;
    k->label = NULL, k->label_lane = label, k->counted = V(lt)(zero, one);
    return 1;
}

/* ---- What comes of it -------------------------------------------------------------------------------------------- */

/* What is found out about the samples at hand, each in its lane. */
typedef struct {
    vec label_logit, share; /* share: what smoothing gives to each class */
    T(shift) shift;
    T(stats) stats;
    vec log_sum, lse;
    vec dot, weight, others_q; /* sum q (m - z), sum q, and that without the maxima */
} T(sample);

/* The target's sums, from those over the classes and what the label adds. */
SIMD_INLINE void T(weigh)(T(sample) * s, const T(known) * k, vec dot, vec top_q, vec others_q, vec n_classes,
                          const softxent_density density)
{
    const vec zero = V(set1)(0), q = k->label_q, ties = s->stats.ties;
    const mask is_max = V(eq)(s->label_logit, s->stats.row_max);
    const vec label_cost = T(cost)(s->label_logit, q, s->stats.row_max);
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
    if (c->o.z_loss > 0) loss = V(fma)(V(mul)(s->lse, V(set1)((real)c->o.z_loss)), s->lse, loss);
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
    return V(fma)(V(mul)(s->lse, k->z_upstream), V(div)(e, T(sum_exp)(s->stats)), entry);
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
    const vec at_top = T(top_gradient)(s->stats, s->weight, s->others_q, k->upstream);
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
    return T(with_z_loss)(c, k, s, e, T(label_gradient)(s->stats, is_max, e, V(mul)(k->label_q, k->upstream)));
}
