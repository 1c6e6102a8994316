/* Loss and gradient of a batch: threads take ranges of its samples, each the next one that is left.
 *
 *     cc -O2 batch.c $(python -m softxent config --cflags --libs) -lpthread -o batch && ./batch */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <softxent.h>

enum { N_SAMPLES = 8192, N_CLASSES = 1000, RANGE = 256, N_THREADS = 2 };
static float logits[N_SAMPLES][N_CLASSES], grad[N_SAMPLES][N_CLASSES], loss[N_SAMPLES];
static int32_t labels[N_SAMPLES];
static const softxent_isa *isa;
static atomic_int next_sample;

static void *run(void *unused)
{
    softxent_block b = {.size = sizeof b, .isa = isa, .n_classes = N_CLASSES, .grad_scale = 1.0 / N_SAMPLES};
    b.logits_sample_stride = b.out_sample_stride = N_CLASSES, b.logits_class_stride = b.out_class_stride = 1;
    b.labels_stride = b.loss_stride = 1, b.label_type = SOFTXENT_INT32;
    for (int i; (i = atomic_fetch_add(&next_sample, RANGE)) < N_SAMPLES;) {
        b.n_samples = N_SAMPLES - i < RANGE ? N_SAMPLES - i : RANGE;
        b.logits = logits[i], b.labels = labels + i, b.loss = loss + i, b.out = grad[i];
        const int status = softxent_cross_entropy_f32(&b, NULL);
        if (status != SOFTXENT_OK) fprintf(stderr, "%s\n", softxent_strerror(status));
    }
    return unused;
}

int main(void)
{
    for (int i = 0; i < N_SAMPLES; labels[i] = rand() % N_CLASSES, ++i)
        for (int k = 0; k < N_CLASSES; ++k) logits[i][k] = (float)rand() / (float)RAND_MAX;
    softxent_isa_select(NULL, &isa); /* once: to ask the processor takes a while */
    pthread_t threads[N_THREADS];
    for (int t = 1; t < N_THREADS; ++t) pthread_create(&threads[t], NULL, run, NULL);
    run(NULL);
    for (int t = 1; t < N_THREADS; ++t) pthread_join(threads[t], NULL);
    double sum = 0;
    for (int i = 0; i < N_SAMPLES; ++i) sum += loss[i];
    printf("mean loss %.6f\n", sum / N_SAMPLES);
}
