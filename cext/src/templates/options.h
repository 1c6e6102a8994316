/* options.h - template: what the options mean for every sample: all defaults filled in, and the scales of the
 * derivatives, which are kept in the range of the dtype. */

/* What multiplies the derivatives of a sample, in the range of reals. */
typedef struct {
    real upstream, z_upstream;     /* multiplies p W - q; multiplies lse p; both divided by `excess` */
    real hess_upstream;            /* multiplies the Hessian's W p (1 - p); divided by `hess_excess` */
    real headroom, power, inverse; /* as in T(headroom) */
    real excess, hess_excess;      /* powers of two */
} T(gain);

/* The exponent of x beyond the range of reals, from 0 to BIAS. It is split off x, and the derivatives are multiplied
 * by 2 to this in the end, because they may be in range where x is not. */
SIMD_INLINE int T(excess_of)(double x)
{
    const int excess = exponent_of(x) - (D(BIAS) - 1);
    return excess < 0 ? 0 : excess < D(BIAS) ? excess : D(BIAS);
}

/* `weight` is the weight of the target: where it is large, the gradient may be large too. */
static T(gain) K(gain_of)(double upstream, double z_upstream, double hess_upstream, double weight)
{
    const double gradient = larger(fabs(upstream), fabs(z_upstream)), hessian = fabs(hess_upstream);
    const int largest = exponent_of(larger(gradient, hessian) * larger(weight, 1));
    const int headroom = largest < HEADROOM ? HEADROOM : largest < D(MOST_HEADROOM) ? largest : D(MOST_HEADROOM);
    const double excess = power_of_2(T(excess_of)(gradient)), hess_excess = power_of_2(T(excess_of)(hessian));
    const T(gain) x = {(real)(upstream / excess),
                       (real)(z_upstream / excess),
                       (real)(hess_upstream / hess_excess),
                       (real)headroom,
                       (real)power_of_2(headroom),
                       (real)power_of_2(-headroom),
                       (real)excess,
                       (real)hess_excess};
    return x;
}

/* What the options mean for every sample. */
typedef struct {
    const softxent_block *b;
    softxent_options o;                /* with all defaults filled in */
    double scale, z_scale, hess_scale; /* multiply p W - q, lse p, and the Hessian's W p (1 - p) */
    T(gain) gain;                      /* for samples without weights or upstream gradients of their own */
    real z_loss, z_loss_root;          /* z_loss times z_loss_root squared is the option z_loss; both stay in range */
    int has_weights;                   /* samples have weights or upstream gradients of their own */
    int checks_masses_later;           /* the row kernel checks each entry of a sparse target where it uses it */
    int has_plain_labels;              /* all labels must be classes, are int64 side by side, and has_weights is 0 */
} T(call);

static T(call) K(call_of)(const softxent_block *b)
{
    T(call) c = {.b = b, .o = {.size = sizeof c.o}};
    if (b->options) c.o = *b->options;
    if (c.o.temperature == 0) c.o.temperature = 1;
    if (c.o.log_base == 0) c.o.log_base = 1;
    const double n = (double)b->n_classes, upstream = b->grad_scale / c.o.temperature;
    /* In this order a product overflows only where the scale itself does: 0 times infinity would be nan. */
    c.scale = upstream / c.o.log_base, c.z_scale = upstream * c.o.z_loss * 2;
    c.hess_scale = c.scale / c.o.temperature;
    if (b->hess && b->hess_kind == SOFTXENT_XGBOOST) c.hess_scale *= 2;
    if (b->hess && b->hess_kind == SOFTXENT_LIGHTGBM && n > 1) c.hess_scale *= n / (n - 1);
    c.gain = K(gain_of)(c.scale, c.z_scale, c.hess_scale, 1);
    const double root = power_of_2(exponent_of(c.o.z_loss) / 2);
    c.z_loss = (real)(c.o.z_loss / root / root), c.z_loss_root = (real)root;
    c.has_weights = c.o.class_weight || b->sample_weight || b->grad_output || b->temperatures;
    c.has_plain_labels = b->labels && b->label_type == SOFTXENT_INT64 && b->labels_stride == 1 &&
                         !b->use_ignore_index && !c.has_weights && !b->parts;
    return c;
}

/* What smoothing gives to each class if all classes are allowed. */
SIMD_INLINE vec T(smoothed_share)(const T(call) * c)
{
    return V(set1)((real)(c->o.label_smoothing / (double)c->b->n_classes));
}
