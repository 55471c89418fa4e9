/* The weights of the parts of an observation side by side: one matrix, and the way of its gradient
   back to them. */
#include "joined.h"

#include "export.h"

XL_API int xl_joined_forward(const joined_arguments *a);
XL_API int xl_joined_backward(const joined_arguments *a);

int xl_joined_forward(const joined_arguments *a) {
  const float scale = a->scale ? *a->scale : 1.0f;
  for (int64_t o = 0; o < a->width; o++) {
    float *row = a->weight + o * a->inputs, bias = 0.0f;
    for (const joined_part *p = a->parts; p < a->parts + a->count; p++) {
      for (int64_t i = 0; i < p->inputs; i++)
        row[i] = scale * (p->is_embedding ? p->weight[i * a->width + o] : p->weight[o * p->inputs + i]);
      if (p->bias) bias += p->bias[o];
      row += p->inputs;
    }
    a->bias[o] = scale * bias;
  }
  return 0;
}

int xl_joined_backward(const joined_arguments *a) {
  const float scale = a->scale ? *a->scale : 1.0f;
  for (int64_t o = 0; o < a->width; o++) {
    const float *row = a->dweight + o * a->inputs;
    for (const joined_part *p = a->parts; p < a->parts + a->count; p++) {
      for (int64_t i = 0; i < p->inputs; i++) {
        const float d = scale * row[i];
        if (p->is_embedding)
          p->dweight[i * a->width + o] = d;
        else
          p->dweight[o * p->inputs + i] = d;
      }
      if (p->dbias) p->dbias[o] = scale * a->dbias[o];
      row += p->inputs;
    }
  }
  return 0;
}
