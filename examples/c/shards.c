/* Logits whose classes lie in shards, as on several machines: each says its part, the parts are merged, and each shard
 * finishes its classes' gradient. Only parts travel: four numbers a sample.
 *
 *     cc -O2 shards.c $(python -m softxent config --cflags --libs) -lm -o shards && ./shards */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <softxent.h>

enum { N_SAMPLES = 64, N_CLASSES = 1000, N_SHARDS = 4, SHARD = N_CLASSES / N_SHARDS };
static double logits[N_SHARDS][N_SAMPLES][SHARD], grad[N_SHARDS][N_SAMPLES][SHARD], loss[N_SAMPLES];
static int64_t labels[N_SAMPLES];
static softxent_part_f64 parts[N_SHARDS][N_SAMPLES];

static softxent_block block_of_shard(int shard)
{
    softxent_block b = {.size = sizeof b, .n_samples = N_SAMPLES, .n_classes = SHARD, .grad_scale = 1};
    b.first_class = shard * SHARD, b.all_classes = N_CLASSES;
    b.logits = logits[shard], b.logits_sample_stride = SHARD, b.logits_class_stride = 1;
    b.labels = labels, b.labels_stride = 1, b.label_type = SOFTXENT_INT64;
    b.parts = parts[shard];
    return b;
}

int main(void)
{
    for (int i = 0; i < N_SAMPLES; labels[i] = rand() % N_CLASSES, ++i)
        for (int k = 0; k < N_CLASSES; ++k) logits[k / SHARD][i][k % SHARD] = rand() / (double)RAND_MAX;
    int status = SOFTXENT_OK;
    for (int s = 0; s < N_SHARDS && !status; ++s) {
        const softxent_block b = block_of_shard(s);
        status = softxent_begin_f64(&b, NULL);
    }
    for (int s = 1; s < N_SHARDS && !status; ++s) { /* into the first one's */
        softxent_block b = block_of_shard(0);
        b.other_parts = parts[s];
        status = softxent_merge_f64(&b);
    }
    for (int s = 0; s < N_SHARDS && !status; ++s) {
        softxent_block b = block_of_shard(s);
        b.parts = parts[0];
        b.out = grad[s], b.out_sample_stride = SHARD, b.out_class_stride = 1;
        if (s == 0) b.loss = loss, b.loss_stride = 1;
        status = softxent_finish_f64(&b, NULL);
    }
    if (status) return fprintf(stderr, "%s\n", softxent_strerror(status)), 1;

    double mean = 0, sum = 0; /* every sample's gradient sums to 0 */
    for (int i = 0; i < N_SAMPLES; ++i) mean += loss[i] / N_SAMPLES;
    for (int s = 0; s < N_SHARDS; ++s)
        for (int i = 0; i < N_SAMPLES; ++i)
            for (int k = 0; k < SHARD; ++k) sum += grad[s][i][k];
    printf("mean loss %.6f, sum of the gradient %.1e\n", mean, sum);
    return fabs(sum) < 1e-10 ? 0 : 1;
}
