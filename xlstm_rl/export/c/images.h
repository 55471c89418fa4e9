/* Convolutions over images [height, width, channels]. */
#pragma once
#include "layers.h"

/* y [out height, out width, out] = A [out, k, k, c] times the patches of x [h, w, c] + bias, with
   `pad` rows and columns of zeros around; patch [k k c] is scratch. */
LOCAL void convolve(int64_t h, int64_t w, int64_t c, int64_t out, int64_t k, int64_t stride,
                    int64_t pad, matrix a, const float *bias, const float *x, float *y, float *patch) {
  const int64_t rows = (h + 2 * pad - k) / stride + 1, columns = (w + 2 * pad - k) / stride + 1;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t s = 0; s < columns; s++) {
      for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++) {
          const int64_t row = r * stride + i - pad, column = s * stride + j - pad;
          float *to = patch + (i * k + j) * c;
          if (row < 0 || row >= h || column < 0 || column >= w)
            memset(to, 0, (size_t)c * sizeof(float));
          else
            memcpy(to, x + (row * w + column) * c, (size_t)c * sizeof(float));
        }
      rows_of(a, 0, out, k * k * c, patch, bias, y + (r * columns + s) * out);
    }
}

/* The largest of every 3 by 3 pixels, at every second one, [(h + 1) / 2, (w + 1) / 2, c]. */
LOCAL void pool(int64_t h, int64_t w, int64_t c, const float *x, float *y) {
  const int64_t rows = (h + 1) / 2, columns = (w + 1) / 2;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t s = 0; s < columns; s++)
      for (int64_t e = 0; e < c; e++) {
        float most = -INFINITY;
        for (int64_t i = 2 * r - 1; i <= 2 * r + 1; i++)
          for (int64_t j = 2 * s - 1; j <= 2 * s + 1; j++) {
            if (i < 0 || i >= h || j < 0 || j >= w) continue;
            const float one = x[(i * w + j) * c + e];
            if (!(one <= most)) most = one;
          }
        y[(r * columns + s) * c + e] = most;
      }
}

/* Pixels as floats, with the channels last */
LOCAL void read_pixels(int64_t h, int64_t w, int64_t c, int channels_last, float scale,
                       const uint8_t *pixels, float *x) {
  for (int64_t i = 0; i < h * w; i++)
    for (int64_t e = 0; e < c; e++)
      x[i * c + e] = (float)pixels[channels_last ? i * c + e : e * h * w + i] * scale;
}
