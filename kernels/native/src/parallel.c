#include "parallel.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

/* How often a thread looks before it sleeps: some 100 to 200 us, what Python takes from one call of an
   update to the next. With a quarter of that an update on two threads took a tenth longer. */
#define SPINS 4000

typedef struct {
    int n, parts;
    xl_body body;
    void *context;
    fenv_t environment; /* rounding and denormals as the caller has them */
} job_t;

/* A loop is handed over, and its end told, by atomics alone: the mutex is for those who sleep. Who
   goes to sleep says so first and then looks once more; who has news tells them first and then looks
   who sleeps. So one of the two sees the other. */
static struct {
    job_t job;              /* read by its own workers alone, until they have finished it */
    atomic_ullong ticket;   /* of the job: its number, and in the lowest bits its parts */
    atomic_int pending;     /* workers that have not finished it */
    atomic_int sleepers;    /* workers that wait for `wake` */
    atomic_int is_awaited;  /* the caller waits for `done` */
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    int workers; /* threads that were started */
    atomic_int spins;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

#define PARTS_BITS 16
#define PARTS_OF(ticket) ((int)((ticket) & ((1u << PARTS_BITS) - 1)))

static atomic_flag busy = ATOMIC_FLAG_INIT;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local int num_threads = 1;
static _Thread_local int inside = -1; /* as which worker this thread runs a body, if it does */

/* A child has the forking thread alone: it starts workers of its own when it needs them. */
static void forget_workers(void) {
    pthread_mutex_init(&pool.mutex, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.workers = 0;
    atomic_store(&pool.pending, 0);
    atomic_store(&pool.sleepers, 0);
    atomic_store(&pool.is_awaited, 0);
    atomic_flag_clear(&busy);
}

static void register_fork(void) { pthread_atfork(NULL, NULL, forget_workers); }

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void run_part(const job_t *job, int part) {
    const int start = (int)share_of(job->n, part, job->parts);
    const int stop = (int)share_of(job->n, part + 1, job->parts);
    inside = part;
    for (int index = start; index < stop; index++) job->body(index, part, job->context);
    inside = -1;
}

/* Wait for another ticket than the one that was seen, awake for a while and then asleep. */
static unsigned long long next_ticket(unsigned long long seen) {
    const int spins = atomic_load(&pool.spins);
    for (int i = 0; i < spins; i++) {
        if (atomic_load(&pool.ticket) != seen) return atomic_load(&pool.ticket);
        relax();
    }
    pthread_mutex_lock(&pool.mutex);
    atomic_fetch_add(&pool.sleepers, 1);
    while (atomic_load(&pool.ticket) == seen) pthread_cond_wait(&pool.wake, &pool.mutex);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.mutex);
    return atomic_load(&pool.ticket);
}

typedef struct {
    int worker;
    unsigned long long seen; /* the ticket before the first job */
} start_t;

static start_t starts[XL_MAX_THREADS];

static void *work(void *argument) {
    const start_t start = *(const start_t *)argument;
    unsigned long long seen = start.seen;
    for (;;) {
        seen = next_ticket(seen);
        if (start.worker >= PARTS_OF(seen)) continue; /* not one of its workers: none waits for it */
        const job_t job = pool.job;
        fesetenv(&job.environment);
        run_part(&job, start.worker);
        if (atomic_fetch_sub(&pool.pending, 1) == 1 && atomic_load(&pool.is_awaited)) {
            pthread_mutex_lock(&pool.mutex);
            pthread_cond_signal(&pool.done);
            pthread_mutex_unlock(&pool.mutex);
        }
    }
    return NULL;
}

/* Start threads until there are `count` workers; fewer where the system has no more to give. */
static void start_workers(int count) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the program's own threads' */
    while (pool.workers < count) {
        pthread_t thread;
        start_t *start = starts + pool.workers;
        *start = (start_t){pool.workers + 1, atomic_load(&pool.ticket)};
        if (pthread_create(&thread, NULL, work, start)) break;
        pthread_detach(thread);
        pool.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    atomic_store(&pool.spins, sysconf(_SC_NPROCESSORS_ONLN) > pool.workers ? SPINS : 0);
}

void xl_parallel_for(int n, xl_body body, void *context) {
    job_t job = {.n = n, .parts = num_threads < n ? num_threads : n, .body = body,
                 .context = context};
    if (job.parts < 2 || inside >= 0 || atomic_flag_test_and_set(&busy)) {
        const int worker = inside < 0 ? 0 : inside;
        for (int index = 0; index < n; index++) body(index, worker, context);
        return;
    }
    pthread_once(&once, register_fork);
    fegetenv(&job.environment);
    if (pool.workers < job.parts - 1) start_workers(job.parts - 1);
    if (pool.workers < job.parts - 1) job.parts = pool.workers + 1;
    pool.job = job;
    atomic_store(&pool.pending, job.parts - 1);
    const unsigned long long number = atomic_load(&pool.ticket) >> PARTS_BITS;
    atomic_store(&pool.ticket, (number + 1) << PARTS_BITS | (unsigned)job.parts);
    if (atomic_load(&pool.sleepers)) {
        pthread_mutex_lock(&pool.mutex);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.mutex);
    }

    run_part(&job, 0);

    const int spins = atomic_load(&pool.spins);
    for (int i = 0; i < spins && atomic_load(&pool.pending); i++) relax();
    if (atomic_load(&pool.pending)) {
        pthread_mutex_lock(&pool.mutex);
        atomic_store(&pool.is_awaited, 1);
        while (atomic_load(&pool.pending)) pthread_cond_wait(&pool.done, &pool.mutex);
        atomic_store(&pool.is_awaited, 0);
        pthread_mutex_unlock(&pool.mutex);
    }
    atomic_flag_clear(&busy);
}

int xl_num_threads(void) { return num_threads; }

int xl_set_threads(int count) {
    num_threads = count < 1 ? 1 : count > XL_MAX_THREADS ? XL_MAX_THREADS : count;
    return num_threads;
}
