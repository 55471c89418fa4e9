/* A policy of xlstm_rl @VERSION@ as one step: C99, without dependencies and without allocation.

   @LOWER@_weights reads the weights file into @UPPER@_BYTES of memory of yours, aligned as a double
   is. Then, for each environment:

     static float state[@UPPER@_STATE], work[@UPPER@_WORK];   zeros at first; `work` may be shared
     @LOWER@_inputs in = {.obs = ..., .reset = 1};
     @LOWER@_outputs out;
     if (@LOWER@_step(weights, &in, state, &out, work) == 0) use(out.action);

   In another file of the same program, which may be of C++, define XLSTM_RL_DECLARATIONS before you
   include this one. */
#include <stddef.h>
#include <stdint.h>

#ifndef @UPPER@_DECLARED
#define @UPPER@_DECLARED
#ifdef __cplusplus
extern "C" {
#endif

enum {
  @UPPER@_STATE = @STATE@, /* floats of a state */
  @UPPER@_WORK = @WORK@,  /* floats that a step works in; they hold nothing between two steps */
  @UPPER@_BYTES = @BYTES@ /* of the weights file */
};

/* An observation as the environment has it, not normalised. */
typedef struct {
@INPUTS@
} @LOWER@_inputs;

/* The most probable action in the environment's units, and the parameters of its distribution:
   logits of choices, side by side; of numbers their means, then their log standard deviations, in
   units of half the range where they are bounded. */
typedef struct {
@OUTPUTS@
} @LOWER@_outputs;

/* Takes a step; `state` becomes the one after it. Returns 0; or, with nothing in `out`, the number
   of the input of choices, counted from 1, that is not in its space. */
int @LOWER@_step(const void *weights, const @LOWER@_inputs *in, float *state,
                 @LOWER@_outputs *out, float *work);
@ACTED_DECLARED@
/* What is wrong with a weights file in memory, or null. */
const char *@LOWER@_check(const void *file, size_t size);

/* Reads and checks the weights file; what went wrong, or null. */
const char *@LOWER@_weights(const char *path, void *memory);

/* Spaces, inputs, outputs and version, as JSON. */
extern const char @LOWER@_description[];

#ifdef __cplusplus
}
#endif
#endif

#ifndef XLSTM_RL_DECLARATIONS
#include <stdio.h>

@HEADERS@

/* ---- the policy ---- */
const char *@LOWER@_check(const void *file, size_t size) {
  return check_weights_file(file, size, @UPPER@_BYTES, UINT64_C(@LAYOUT@));
}

const char *@LOWER@_weights(const char *path, void *memory) {
  FILE *file = fopen(path, "rb");
  size_t size, more;
  if (!file) return "the weights file cannot be opened";
  size = fread(memory, 1, @UPPER@_BYTES, file);
  more = fgetc(file) != EOF;
  fclose(file);
  return @LOWER@_check(memory, size + more);
}

#define AT(type, byte) ((const type *)(const void *)((const char *)weights + (byte)))

int @LOWER@_step(const void *weights, const @LOWER@_inputs *in, float *state,
                 @LOWER@_outputs *out, float *work) {
  float *scratch = work + @OWN_WORK@;
  (void)scratch;
  if (in->reset) memset(state, 0, @UPPER@_STATE * sizeof(float));
@BODY@
  return 0;
}
@ACTED@
const char @LOWER@_description[] =
@DESCRIPTION@;
#endif
