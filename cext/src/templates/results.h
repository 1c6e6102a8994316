/* results.h - template: what an operation leaves of each sample, once its statistics and its target's sums are known.
 * The entries of an output are the kernels' own, and so are ranks. */

SIMD_INLINE void T(store_results)(const T(call) * c, const T(targets) * targets, const T(sample) * s, softxent_op op)
{
    if (has_trait(op, HAS_LOSS)) T(store_losses)(c, targets, T(loss_of)(c, targets, s));
    if (op == OP_LOGSUMEXP) T(store_losses)(c, targets, s->lse);
    if (op == OP_BEGIN) T(write_parts)(c->b, targets, s);
}
