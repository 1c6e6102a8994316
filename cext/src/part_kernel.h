/* part_kernel.h - template: samples of whose classes only some are at hand, as in a stream or a shard.
 *
 * What some classes say of a sample is a part: their maximum, how many have it, the sum of the others' exps and, if it
 * is among them, the label's logit. Parts of different classes are merged, and from that of all classes come the loss
 * and, for the classes at hand, the gradient. The sweeps are the general kernel's. */

enum { D(PART_STRIDE) = sizeof(T(softxent_part)) / sizeof(real) };

/* LANES parts, each in its lane. */
typedef struct {
    vec row_max, n_max, sum_others, label_logit;
} T(parts);

SIMD_INLINE T(parts) T(load_parts)(const T(softxent_part) * p, ptrdiff_t n)
{
    const ptrdiff_t stride = D(PART_STRIDE);
    const T(parts) parts = {
        T(gather)((const char *)&p->row_max, SOFTXENT_REAL, stride, n, 0),
        T(gather)((const char *)&p->n_max, SOFTXENT_REAL, stride, n, 1),
        T(gather)((const char *)&p->sum_others, SOFTXENT_REAL, stride, n, 0),
        T(gather)((const char *)&p->label_logit, SOFTXENT_REAL, stride, n, 0),
    };
    return parts;
}

SIMD_INLINE void T(store_parts)(T(softxent_part) * p, ptrdiff_t n, T(parts) parts)
{
    const ptrdiff_t stride = D(PART_STRIDE);
    T(scatter)((char *)&p->row_max, SOFTXENT_REAL, stride, n, parts.row_max);
    T(scatter)((char *)&p->n_max, SOFTXENT_REAL, stride, n, parts.n_max);
    T(scatter)((char *)&p->sum_others, SOFTXENT_REAL, stride, n, parts.sum_others);
    T(scatter)((char *)&p->label_logit, SOFTXENT_REAL, stride, n, parts.label_logit);
}

/* What there is to say of a sample that is ignored, or of no class: merged with any other, nothing changes. */
SIMD_INLINE T(parts) T(no_parts)(void)
{
    const T(parts) none = {V(set1)(-(real)INFINITY), V(set1)(0), V(set1)(0), V(set1)((real)NAN)};
    return none;
}

/* The group's parts from its first two sweeps; or, without, of a group that is ignored altogether. */
static void K(write_parts)(const T(general) * g, const T(found) * f)
{
    const T(parts) none = T(no_parts)();
    T(softxent_part) *to = (T(softxent_part) *)g->b->parts + g->known.begin;
    if (!f) {
        T(store_parts)(to, g->known.n_samples, none);
        return;
    }
    const T(stats) s = f->s.stats;
    const mask counted = g->known.counted;
    const mask is_here = V(lt)(V(set1)(LABEL_NONE), g->known.label_lane); /* a class of these */
    const T(parts) parts = {
        V(select)(counted, s.row_max, none.row_max),
        V(select)(counted, s.ties, none.n_max),
        V(select)(counted, V(div)(s.others, s.top), none.sum_others),
        V(select)(is_here, f->s.label_logit, none.label_logit),
    };
    T(store_parts)(to, g->known.n_samples, parts);
}

/* And the other way: what the first two sweeps would have found. */
static void K(read_parts)(const T(general) * g, T(found) * f)
{
    T(parts) p = T(load_parts)((const T(softxent_part) *)g->b->parts + g->known.begin, g->known.n_samples);
    if (g->in_rows) {
        p.row_max = V(set1)(V(first)(p.row_max)), p.n_max = V(set1)(V(first)(p.n_max));
        p.sum_others = V(set1)(V(first)(p.sum_others)), p.label_logit = V(set1)(V(first)(p.label_logit));
    }
    const vec top = (f->t = T(tempered_of)(p.row_max, g->call.o.temperature)).shift.top;
    f->s.label_logit = p.label_logit;
    f->s.stats = T(stats_of)(p.row_max, top, p.n_max, V(mul)(p.sum_others, top), g->op);
    T(conclude)(g, f, T(no_sums)());
}

/* Of two sets of classes the one with the lower maximum is scaled to the other's. */
SIMD_INLINE vec T(others_in)(T(parts) p, vec row_max, const T(tempered) * t)
{
    const vec e = V(div)(T(exp_tempered)(p.row_max, t), t->shift.top);
    return V(select)(V(eq)(p.row_max, row_max), p.sum_others, V(mul)(V(add)(p.n_max, p.sum_others), e));
}

static ptrdiff_t K(merge)(const softxent_block *b)
{
    const T(call) call = T(call_of)(b);
    const vec zero = V(set1)(0);
    for (ptrdiff_t i = 0; i < b->n_samples; i += LANES) {
        T(softxent_part) *to = (T(softxent_part) *)b->parts + i;
        const T(parts) p = T(load_parts)(to, b->n_samples - i);
        const T(parts) q = T(load_parts)((const T(softxent_part) *)b->other_parts + i, b->n_samples - i);
        const vec row_max = V(max)(p.row_max, q.row_max);
        const T(tempered) t = T(tempered_of)(row_max, call.o.temperature);
        const T(parts) both = {
            row_max,
            V(add)(V(select)(V(eq)(p.row_max, row_max), p.n_max, zero),
                   V(select)(V(eq)(q.row_max, row_max), q.n_max, zero)),
            V(add)(T(others_in)(p, row_max, &t), T(others_in)(q, row_max, &t)),
            V(select)(V(eq)(p.label_logit, p.label_logit), p.label_logit, q.label_logit),
        };
        T(store_parts)(to, b->n_samples - i, both);
    }
    return b->n_samples;
}
