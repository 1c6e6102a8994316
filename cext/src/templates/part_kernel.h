/* part_kernel.h - template: samples of which only some classes are at hand, as in a stream or in a shard.
 *
 * A part (softxent_part) is the statistics of some classes of a sample: their maximum, how many have it, the sum of the
 * other classes' exps, and the label's logit if the label is among them. The first two sweeps of the other kernels
 * compute a part, and their third sweep forms a gradient from the part of all classes. This file has what these kernels
 * share, and what needs no logits: the merge and the losses. */

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

/* Writes the parts of the samples at hand, from what the first two sweeps have computed. For a sample that does not
 * count the part is empty: merged with any other part, it changes nothing. */
SIMD_INLINE void T(write_parts)(const softxent_block *b, const T(targets) * targets, const T(sample) * s)
{
    const vec zero = V(set1)(0);
    const T(stats) x = s->stats;
    const mask is_here = V(lt)(V(set1)(LABEL_NONE), targets->label_lane); /* the label is a class of this block */
    const T(parts) parts = {
        V(select)(targets->counted, x.row_max, V(set1)(-(real)INFINITY)),
        V(select)(targets->counted, x.n_max, zero),
        V(select)(targets->counted, V(div)(x.others, x.top), zero),
        V(select)(is_here, s->label_logit, V(set1)((real)NAN)),
    };
    T(store_parts)((T(softxent_part) *)b->parts + targets->begin, targets->n_samples, parts);
}

/* Reads the parts of the samples at hand. A sample that does not count gets the part of one class with logit 0. */
SIMD_INLINE T(parts) T(read_parts)(const softxent_block *b, const T(targets) * targets)
{
    const T(parts) p = T(load_parts)((const T(softxent_part) *)b->parts + targets->begin, targets->n_samples);
    const vec zero = V(set1)(0);
    const T(parts) counted = {
        V(select)(targets->counted, p.row_max, zero),
        V(select)(targets->counted, p.n_max, V(set1)(1)),
        V(select)(targets->counted, p.sum_others, zero),
        V(select)(targets->counted, p.label_logit, zero),
    };
    return counted;
}

/* Computes from parts what the first two sweeps would have computed. `shift` is that of the exps, and target_cost is in
 * units of 1 / unit. */
SIMD_INLINE void T(stats_from_parts)(T(sample) * s, const T(targets) * targets, T(parts) p, T(shift) shift, vec unit)
{
    const vec zero = V(set1)(0);
    s->label_logit = p.label_logit, s->shift = shift;
    s->stats = T(stats_of)(p.row_max, shift.top, p.n_max, V(mul)(p.sum_others, shift.top), OP_FINISH);
    const vec label_cost = T(cost)(V(mul)(p.label_logit, unit), targets->label_q, V(mul)(p.row_max, unit));
    T(sum_targets)(s, targets, label_cost, zero, zero, zero, zero, INDEX);
}

/* ---- What needs no logits ---------------------------------------------------------------------------------------- */

static ptrdiff_t K(finish_losses)(const softxent_block *b)
{
    const T(call) call = K(call_of)(b);
    const T(inverses) inverse = T(one_temperature)(call.o.temperature);
    T(labels) labels;
    T(targets) targets;
    T(no_labels)(&labels), T(no_targets)(&targets);
    for (ptrdiff_t begin = 0; begin < b->n_samples; begin += LANES) {
        const int n_samples = (int)(b->n_samples - begin < LANES ? b->n_samples - begin : LANES);
        K(load_targets)(&targets, &labels, &call, begin, n_samples, 0);
        const T(parts) p = T(read_parts)(b, &targets);
        const T(tempered) t = T(tempered_of)(p.row_max, &inverse, targets.headroom);
        T(sample) s;
        T(stats_from_parts)(&s, &targets, p, t.shift, t.unit);
        T(set_lse)(&s, &t);
        s.target_cost = V(mul)(s.target_cost, t.scale_of_unit);
        T(store_losses)(&call, &targets, T(loss_of)(&call, &targets, &s));
        if (targets.n_samples < n_samples) return begin + targets.n_samples;
    }
    return b->n_samples;
}

/* The sum of part p's exps, relative to row_max, which is the maximum of both parts; classes that have row_max are left
 * out. If the maximum of p is lower, all of its exps are scaled. */
SIMD_INLINE vec T(others_in)(T(parts) p, vec row_max, const T(tempered) * t)
{
    const vec e = V(div)(T(exp_tempered)(p.row_max, t), t->shift.top);
    return V(select)(V(eq)(p.row_max, row_max), p.sum_others, V(mul)(V(add)(p.n_max, p.sum_others), e));
}

static ptrdiff_t K(merge)(const softxent_block *b)
{
    const T(call) call = K(call_of)(b);
    const T(inverses) inverse = T(one_temperature)(call.o.temperature);
    const vec zero = V(set1)(0);
    for (ptrdiff_t i = 0; i < b->n_samples; i += LANES) {
        T(softxent_part) *to = (T(softxent_part) *)b->parts + i;
        const T(parts) p = T(load_parts)(to, b->n_samples - i);
        const T(parts) q = T(load_parts)((const T(softxent_part) *)b->other_parts + i, b->n_samples - i);
        const vec row_max = V(max)(p.row_max, q.row_max);
        const T(tempered) t = T(tempered_of)(row_max, &inverse, T(headroom_of)(HEADROOM));
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
