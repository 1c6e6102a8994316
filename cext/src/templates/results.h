/* results.h - template: stores the results of each sample, once its stats and its target's sums are computed. The
 * kernels themselves write the entries of an output, and ranks. */

SIMD_INLINE void T(store_results)(const T(call) * c, const T(targets) * targets, const T(sample) * s, softxent_op op)
{
    if (has_trait(op, HAS_LOSS)) T(store_losses)(c, targets, T(loss_of)(c, targets, s));
    if (op == OP_ENTROPY) T(store_losses)(c, targets, T(entropy_of)(c, targets, s));
    if (op == OP_LOGSUMEXP) T(store_losses)(c, targets, s->lse);
    if (op == OP_BEGIN) T(write_parts)(c->b, targets, s);
}
