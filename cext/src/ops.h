/* ops.h - the operations, one line for each: its name, what a block must have for it, what else it looks at, and what
 * its kernels do.
 *
 * All differences between operations are read from here: by the public functions, by the choice of the kernels, and by
 * the tests. A new operation needs a line here, its function in softxent.h, and its own code in the kernels. */
#ifndef SOFTXENT_OPS_H
#define SOFTXENT_OPS_H

enum {
    /* What a block must have. */
    NEEDS_LOGITS = 1 << 0,
    NEEDS_LABELS = 1 << 1, /* or a target */
    NEEDS_SHARD = 1 << 2,  /* parts, and labels among all classes: no target, no Hessian, no weights of classes */
    NEEDS_PARTS = 1 << 3,
    NEEDS_OTHER_PARTS = 1 << 4,
    NEEDS_TARGET = 1 << 5, /* dense or sparse */
    NEEDS_DENSE_TARGET = 1 << 6,
    NEEDS_DIRECTION = 1 << 7,
    NEEDS_LOSS = 1 << 8,
    NEEDS_OUT = 1 << 9,
    NEEDS_LOSS_OR_OUT = 1 << 10, /* and logits beside `out` */

    /* What else of a block the operation looks at. The kernels do not see a field that no NEEDS and no HEEDS names. */
    HEEDS_TEMPERATURE = 1 << 11, /* and `where` */
    HEEDS_WEIGHTS = 1 << 12,     /* the weights, upstream gradients and temperatures of samples */
    HEEDS_OPTIONS = 1 << 13,     /* all of them, `where`, and what HEEDS_WEIGHTS says */
    HEEDS_OUT = 1 << 14,         /* a gradient, if `out` is given; and what it is added to */
    HEEDS_HESS = 1 << 15,        /* the diagonal of a Hessian, beside a gradient; the derivative with respect to T */

    /* What its kernels do. */
    HAS_LOSS = 1 << 16,       /* the loss of labels or targets, over all classes */
    HAS_GRADIENT = 1 << 17,   /* `out` is the loss's gradient */
    HAS_EXPS = 1 << 18,       /* `out` is made of exps that an earlier sweep has formed */
    HAS_HESSIAN = 1 << 19,    /* a Hessian, for which softcap and z_loss have no formula */
    REREADS_LOGITS = 1 << 20, /* `out` is made of the logits too: exps must not be stored over them */
    IS_NEGATED = 1 << 21,     /* `out` is minus the loss's gradient: g - p sum g, with g as its target */
    IS_GENERAL = 1 << 22,     /* only the general kernel can do it */
};

/* OP(NAME, function, last, traits): OP_NAME is what softxent_FUNCTION_f32 and _f64 do. BAD_SAMPLE is their last
 * argument where a label or a target may be bad; functions with LOGITS_ALONE have no such argument. */
#define SOFTXENT_OPS(OP)                                                                                               \
    OP(CROSS_ENTROPY, cross_entropy, BAD_SAMPLE,                                                                       \
       NEEDS_LOGITS | NEEDS_LABELS | NEEDS_LOSS | HEEDS_OPTIONS | HEEDS_OUT | HEEDS_HESS | HAS_LOSS | HAS_GRADIENT |   \
           HAS_EXPS)                                                                                                   \
    OP(RANK, cross_entropy_and_rank, BAD_SAMPLE, NEEDS_LOGITS | NEEDS_LABELS | NEEDS_LOSS | HEEDS_OPTIONS | HAS_LOSS)  \
    OP(HVP, cross_entropy_hvp, BAD_SAMPLE,                                                                             \
       NEEDS_LOGITS | NEEDS_LABELS | NEEDS_DIRECTION | NEEDS_OUT | HEEDS_OPTIONS | HAS_EXPS | HAS_HESSIAN |            \
           IS_GENERAL)                                                                                                 \
    OP(SOFTMAX, softmax, LOGITS_ALONE, NEEDS_LOGITS | NEEDS_OUT | HEEDS_TEMPERATURE | HAS_EXPS)                        \
    OP(LOG_SOFTMAX, log_softmax, LOGITS_ALONE, NEEDS_LOGITS | NEEDS_OUT | HEEDS_TEMPERATURE)                           \
    OP(LOGSUMEXP, logsumexp, LOGITS_ALONE, NEEDS_LOGITS | NEEDS_LOSS | HEEDS_TEMPERATURE)                              \
    OP(ENTROPY, entropy, LOGITS_ALONE,                                                                                 \
       NEEDS_LOGITS | NEEDS_LOSS | HEEDS_TEMPERATURE | HEEDS_WEIGHTS | HEEDS_OUT | HAS_EXPS | REREADS_LOGITS)          \
    OP(KL, kl_divergence, BAD_SAMPLE,                                                                                  \
       NEEDS_LOGITS | NEEDS_DENSE_TARGET | NEEDS_LOSS | HEEDS_TEMPERATURE | HEEDS_WEIGHTS | HEEDS_OUT | HAS_GRADIENT | \
           IS_GENERAL)                                                                                                 \
    OP(JVP, softmax_jvp, LOGITS_ALONE,                                                                                 \
       NEEDS_LOGITS | NEEDS_DIRECTION | NEEDS_OUT | HEEDS_TEMPERATURE | HAS_EXPS | IS_GENERAL)                         \
    OP(LOG_JVP, log_softmax_jvp, LOGITS_ALONE,                                                                         \
       NEEDS_LOGITS | NEEDS_DIRECTION | NEEDS_OUT | HEEDS_TEMPERATURE | IS_GENERAL)                                    \
    OP(LOG_VJP, log_softmax_vjp, LOGITS_ALONE,                                                                         \
       NEEDS_LOGITS | NEEDS_DIRECTION | NEEDS_OUT | HEEDS_TEMPERATURE | HAS_GRADIENT | IS_NEGATED | IS_GENERAL)        \
    OP(JACOBIAN, softmax_jacobian, LOGITS_ALONE, NEEDS_LOGITS | NEEDS_OUT | IS_GENERAL)                                \
    OP(BEGIN, begin, BAD_SAMPLE, NEEDS_LOGITS | NEEDS_SHARD | HEEDS_OPTIONS)                                           \
    OP(MERGE, merge, LOGITS_ALONE, NEEDS_PARTS | NEEDS_OTHER_PARTS | HEEDS_TEMPERATURE)                                \
    OP(FINISH, finish, BAD_SAMPLE, NEEDS_SHARD | NEEDS_LOSS_OR_OUT | HEEDS_OPTIONS | HEEDS_OUT | HAS_GRADIENT)         \
    OP(CHECK_TARGET, check_target, BAD_SAMPLE, NEEDS_TARGET | HEEDS_WEIGHTS)

#define SOFTXENT_OP_NAME(NAME, function, last, traits) OP_##NAME,
typedef enum { SOFTXENT_OPS(SOFTXENT_OP_NAME) N_OPS } softxent_op;
#undef SOFTXENT_OP_NAME

static inline int has_trait(softxent_op op, unsigned trait)
{
#define SOFTXENT_OP_TRAITS(NAME, function, last, traits) traits,
    static const unsigned all[] = {SOFTXENT_OPS(SOFTXENT_OP_TRAITS)};
#undef SOFTXENT_OP_TRAITS
    return (all[op] & trait) != 0;
}

#endif
