/* Balances a pole with an exported policy: no Python, no library but libc and libm.

     xlstm-rl train --config cartpole_novel --run-dir RUN
     xlstm-rl export RUN --format c --out policy.c
     cc -std=c99 -O2 -I. examples/act_from_c.c -o act -lm && ./act policy.weights

   The pole is that of Gymnasium's CartPole; the policy sees neither of its velocities. */
#include "policy.c"

#include <stdio.h>

static double weights[POLICY_BYTES / sizeof(double) + 1];
static float state[POLICY_STATE], work[POLICY_WORK];

typedef struct {
  double x, speed, angle, turning;
} pole;

/* Moves on by 0.02 s under a force of 10 N to the left (0) or the right (1). */
static void push(pole *p, int64_t action) {
  const double sine = sin(p->angle), cosine = cos(p->angle), force = action == 1 ? 10 : -10;
  const double push = (force + 0.05 * p->turning * p->turning * sine) / 1.1;
  const double turn =
      (9.8 * sine - cosine * push) / (0.5 * (4.0 / 3.0 - 0.1 * cosine * cosine / 1.1));
  const double move = push - 0.05 * turn * cosine / 1.1;
  p->x += 0.02 * p->speed;
  p->speed += 0.02 * move;
  p->angle += 0.02 * p->turning;
  p->turning += 0.02 * turn;
}

static int has_fallen(const pole *p) {
  return fabs(p->x) > 2.4 || fabs(p->angle) > 12 * 2 * 3.141592653589793 / 360;
}

int main(int count, char **arguments) {
  const char *wrong = policy_weights(count > 1 ? arguments[1] : "policy.weights", weights);
  if (wrong) {
    fprintf(stderr, "%s\n", wrong);
    return 1;
  }
  for (int episode = 0; episode < 5; episode++) {
    pole p = {0, 0, 0.02 * (episode - 2), 0};
    int steps = 0;
    for (; steps < 500 && !has_fallen(&p); steps++) {
      const float seen[2] = {(float)p.x, (float)p.angle};
      const policy_inputs in = {.obs = seen, .reset = steps == 0};
      policy_outputs out;
      if (policy_step(weights, &in, state, &out, work)) return 1;
      push(&p, out.action);
    }
    printf("%d\n", steps);
  }
  return 0;
}
