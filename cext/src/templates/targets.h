/* targets.h - template: for each sample at hand its label, its weights and its upstream gradient, each sample in a
 * lane. Every kernel starts here, before it reads any logits. */

/* Labels and weights are gathered for a block of samples at a time, because of store-to-load forwarding: it fails for a
 * vector load of values that were just stored one by one. Such a load waits until all earlier stores, those to the
 * output included, have left the core. All labels in [begin, end) are good: `end` is where the first bad label is.
 * Nothing else is kept of a bad label, because another thread may correct it before its turn comes. */
enum { D(LABELS_READ) = 256 };
typedef struct {
    ptrdiff_t begin, end;                       /* the samples that are loaded here */
    int64_t label[D(LABELS_READ) + MOST_LANES]; /* longer, so that whole vectors can be loaded */
    /* The fields of T(targets), filled in only if samples have weights or upstream gradients of their own. */
    real label_weight[D(LABELS_READ)], label_q[D(LABELS_READ)], sample_weight[D(LABELS_READ)];
    real upstream[D(LABELS_READ)], z_upstream[D(LABELS_READ)], hess_upstream[D(LABELS_READ)];
    int is_large; /* whether an upstream gradient is above 2^HEADROOM: only then are the arrays below filled in */
    real headroom[D(LABELS_READ)], headroom_power[D(LABELS_READ)], headroom_inverse[D(LABELS_READ)];
    real excess[D(LABELS_READ)], hess_excess[D(LABELS_READ)];
} T(labels);

/* Up to LANES samples, one in each lane; or one sample, which is in all lanes. */
typedef struct {
    ptrdiff_t begin; /* the first sample */
    int n_samples, all_counted, any_counted;
    int is_plain; /* all samples count, and have the weights of the call, which are below */
    /* The class of each sample, LABEL_NONE or LABEL_IGNORED. `label` is NULL where the labels were loaded into lanes
     * alone. In label_lane they are real numbers, and lanes that have no sample hold LABEL_IGNORED. */
    const int64_t *label;
    vec label_lane;
    mask counted;
    vec label_weight, label_q; /* w at the label; what the label adds to q */
    vec sample_weight;
    /* The scales of the call times the sample's own weight and upstream gradient. These three, label_q and
     * sample_weight are 0 for a sample that does not count. */
    vec upstream, z_upstream, hess_upstream;
    T(headroom) headroom;
    int has_excess; /* derivatives must be multiplied by these powers of two at the end; else both are 1 */
    vec excess, hess_excess;
} T(targets);

SIMD_INLINE vec T(if_counted)(const T(targets) * targets, vec x)
{
    return targets->all_counted ? x : V(select)(targets->counted, x, V(set1)(0));
}

SIMD_INLINE void T(no_labels)(T(labels) * l) { l->begin = l->end = 0; }

/* `own` times the upstream gradient of the sample, if it has one. */
SIMD_INLINE double T(own_upstream)(const softxent_block *b, ptrdiff_t sample, double own)
{
    const real *g = (const real *)b->grad_output;
    return g ? own * g[sample * b->grad_output_stride] : own;
}

/* The scales of the call times a sample's own weight and upstream gradient, over its own temperature. */
typedef struct {
    double upstream, z_upstream, hess_upstream;
} T(scales);

SIMD_INLINE T(scales) T(scales_of)(const T(call) * c, ptrdiff_t sample, double weight)
{
    const softxent_block *b = c->b;
    const double all = T(own_upstream)(b, sample, weight);
    T(scales) x = {c->scale * all, c->z_scale * all, c->hess_scale * all};
    if (b->temperatures) {
        const double inverse = 1 / b->temperatures[sample * b->temperatures_stride];
        x.upstream *= inverse, x.z_upstream *= inverse, x.hess_upstream *= inverse * inverse;
    }
    return x;
}

/* Reads the weights of sample l->begin + i. A sample of weight 0 does not count, whatever its logits and its target
 * hold; its label was checked before. */
SIMD_INLINE void T(read_weights)(T(labels) * l, const T(call) * c, int i)
{
    const softxent_block *b = c->b;
    const real *w = (const real *)c->o.class_weight, *s = (const real *)b->sample_weight;
    const ptrdiff_t y = (ptrdiff_t)l->label[i], sample = l->begin + i;
    const double own = s ? s[sample * b->sample_weight_stride] : 1;
    const double weight = y >= 0 && w ? w[y] : b->labels != NULL; /* 1 also for a class in another shard */
    const T(scales) x = T(scales_of)(c, sample, own);
    const double limit = TWO_TO_HEADROOM / larger(weight, 1);
    const int is_small = fabs(x.upstream) <= limit && fabs(x.z_upstream) <= limit && fabs(x.hess_upstream) <= limit;
    if (own == 0) l->label[i] = LABEL_IGNORED;
    l->label_weight[i] = (real)weight, l->label_q[i] = (real)((1 - c->o.label_smoothing) * weight);
    l->sample_weight[i] = (real)own, l->upstream[i] = (real)x.upstream;
    l->z_upstream[i] = (real)x.z_upstream, l->hess_upstream[i] = (real)x.hess_upstream;
    /* nan sets it too: how a sample is computed must not depend on the other samples */
    l->is_large |= !is_small;
}

/* Computes again what read_weights has, for upstream gradients that may be out of range. */
static void K(read_gains)(T(labels) * l, const T(call) * c)
{
    for (int i = 0; i < l->end - l->begin; ++i) {
        const T(scales) own = T(scales_of)(c, l->begin + i, l->sample_weight[i]);
        const T(gain) x = K(gain_of)(own.upstream, own.z_upstream, own.hess_upstream, l->label_weight[i]);
        l->upstream[i] = x.upstream, l->z_upstream[i] = x.z_upstream, l->hess_upstream[i] = x.hess_upstream;
        l->headroom[i] = x.headroom, l->headroom_power[i] = x.power, l->headroom_inverse[i] = x.inverse;
        l->excess[i] = x.excess, l->hess_excess[i] = x.hess_excess;
    }
}

/* Prefetches n labels, if they lie side by side. */
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
    const int good = b->labels   ? label_classes(b, begin, n, l->label)
                     : b->masses ? K(good_masses)(b, begin, n, c->checks_masses_later)
                                 : n;
    if (b->labels) T(prefetch_labels)(b, begin + n, n);
    for (int i = 0; i < n && !b->labels; ++i) l->label[i] = LABEL_NONE;
    l->begin = begin, l->end = begin + good, l->is_large = 0;
    for (int i = 0; i < good && c->has_weights; ++i) T(read_weights)(l, c, i);
    if (l->is_large) K(read_gains)(l, c);
}

/* A value of each sample at hand in its lane; or, with in_rows, that of the one sample in all lanes. */
SIMD_INLINE vec T(lanes_read)(const T(targets) * targets, const real *lanes, real fill, int in_rows)
{
    const vec v = V(load_till)(lanes, targets->n_samples, fill);
    return in_rows ? V(set1)(V(first)(v)) : v;
}

SIMD_INLINE vec T(label_lanes)(const T(targets) * targets, int in_rows)
{
    const vec v = V(of_int64)(targets->label);
    if (in_rows) return V(set1)(V(first)(v));
    return targets->n_samples == LANES ? v : T(first_lanes)(v, targets->n_samples, LABEL_IGNORED);
}

SIMD_INLINE void T(set_gain)(T(targets) * targets, const T(gain) * x)
{
    const T(headroom) headroom = {V(set1)(x->headroom), V(set1)(x->power), V(set1)(x->inverse)};
    targets->headroom = headroom, targets->has_excess = x->excess != 1 || x->hess_excess != 1;
    targets->excess = V(set1)(x->excess), targets->hess_excess = V(set1)(x->hess_excess);
}

/* Sets the weights and scales of the call, for samples that have none of their own. */
SIMD_INLINE void T(set_call_weights)(T(targets) * targets, const T(call) * c)
{
    const real has_label = c->b->labels != NULL;
    targets->label_weight = V(set1)(has_label), targets->sample_weight = V(set1)(1);
    targets->label_q = V(set1)((real)(1 - c->o.label_smoothing) * has_label);
    targets->upstream = V(set1)(c->gain.upstream), targets->z_upstream = V(set1)(c->gain.z_upstream);
    targets->hess_upstream = V(set1)(c->gain.hess_upstream);
    T(set_gain)(targets, &c->gain);
}

SIMD_INLINE void T(load_weights)(T(targets) * targets, const T(labels) * l, ptrdiff_t at, int in_rows)
{
    targets->label_weight = T(lanes_read)(targets, l->label_weight + at, 0, in_rows);
    targets->label_q = T(lanes_read)(targets, l->label_q + at, 0, in_rows);
    targets->sample_weight = T(lanes_read)(targets, l->sample_weight + at, 0, in_rows);
    targets->upstream = T(lanes_read)(targets, l->upstream + at, 0, in_rows);
    targets->z_upstream = T(lanes_read)(targets, l->z_upstream + at, 0, in_rows);
    targets->hess_upstream = T(lanes_read)(targets, l->hess_upstream + at, 0, in_rows);
    targets->has_excess = l->is_large;
    if (!l->is_large) {
        targets->headroom = T(headroom_of)(HEADROOM), targets->excess = targets->hess_excess = V(set1)(1);
        return;
    }
    targets->headroom.h = T(lanes_read)(targets, l->headroom + at, 0, in_rows);
    targets->headroom.power = T(lanes_read)(targets, l->headroom_power + at, 1, in_rows);
    targets->headroom.inverse = T(lanes_read)(targets, l->headroom_inverse + at, 1, in_rows);
    targets->excess = T(lanes_read)(targets, l->excess + at, 1, in_rows);
    targets->hess_excess = T(lanes_read)(targets, l->hess_excess + at, 1, in_rows);
}

SIMD_INLINE void T(no_targets)(T(targets) * targets) { targets->is_plain = 0; }

/* Loads the samples from `begin` on, up to n_samples of them, but stops before the first label that is no class. With
 * `in_rows` there is one sample. `l` starts empty and keeps its labels from call to call. Where it does not hold all of
 * the samples, all of them are read again, whatever was seen of them before: so the samples that are used always come
 * from the last read. */
static void K(load_targets)(T(targets) * targets, T(labels) * l, const T(call) * c, ptrdiff_t begin, int n_samples,
                            int in_rows)
{
    if (begin < l->begin || begin + n_samples > l->end) K(read_labels)(l, c, begin);
    const ptrdiff_t good = l->end - begin, at = begin - l->begin;
    targets->begin = begin, targets->n_samples = (int)(good < n_samples ? good : n_samples);
    targets->label = l->label + at;
    targets->label_lane = T(label_lanes)(targets, in_rows);
    targets->counted = V(lt)(V(set1)(LABEL_BAD), targets->label_lane);
    targets->any_counted = V(any)(targets->counted);
    targets->all_counted = !V(any)(V(eq)(targets->label_lane, V(set1)(LABEL_IGNORED)));
    if (c->has_weights)
        T(load_weights)(targets, l, at, in_rows);
    else if (!targets->is_plain)
        T(set_call_weights)(targets, c);
    targets->is_plain = targets->all_counted && !c->has_weights;
    targets->label_q = T(if_counted)(targets, targets->label_q),
    targets->sample_weight = T(if_counted)(targets, targets->sample_weight);
    targets->upstream = T(if_counted)(targets, targets->upstream),
    targets->z_upstream = T(if_counted)(targets, targets->z_upstream);
    targets->hess_upstream = T(if_counted)(targets, targets->hess_upstream);
}

/* Loads LANES samples with plain labels (has_plain_labels), where labels are needed in lanes alone. Returns 0, and
 * leaves `targets` as it was, if one of the labels is no class. */
SIMD_INLINE int T(load_plain_targets)(T(targets) * targets, const T(call) * c, ptrdiff_t begin)
{
    const int64_t *labels = (const int64_t *)c->b->labels + begin;
    const vec label = V(of_int64)(labels), zero = V(set1)(0), one = V(set1)(1);
    const vec beyond = V(select)(V(lt)(label, V(set1)((real)c->b->n_classes)), zero, one);
    const vec is_bad = V(select)(V(lt)(V(set1)(-1), label), beyond, one); /* nan, of too large a number, is bad too */
    PREFETCH(labels + D(LABELS_READ));
    if (LANES * sizeof *labels > CACHE_LINE) PREFETCH(labels + D(LABELS_READ) + CACHE_LINE / sizeof *labels);
    if (V(any)(V(lt)(zero, is_bad))) return 0;
    if (!targets->is_plain) T(set_call_weights)(targets, c);
    targets->begin = begin, targets->n_samples = LANES,
    targets->all_counted = targets->any_counted = targets->is_plain = 1;
    targets->label = NULL, targets->label_lane = label, targets->counted = V(lt)(zero, one);
    return 1;
}
