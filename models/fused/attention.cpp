// The attention sublayer of a post-norm block, y = norm(x + out(attention(x))), on CPUs with AVX-512 bf16.
//
// One thread computes one head of one example: queries, keys and values, their rotation, the scores a few queries at a
// time, and the values weighted by them. Then rows are taken a few at a time, as in swiglu.cpp. Scores and probabilities
// are never written to memory; the backward pass computes them again, of a few keys at a time, from the queries, keys
// and the log of the sum of each query (as arXiv 2205.14135).

#include <cstring>
#include <limits>

#include "common.h"

namespace {

using namespace fused;

constexpr int64_t MOST_POSITIONS = 128;  // computed at once

// Probabilities are computed as 2^(score * log2_scale).
float log2_scale(int64_t d) { return LOG2_E / std::sqrt(static_cast<float>(d)); }

int64_t rounded_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Rows of scores that, at `columns` each, take 256 KB in fp32.
int64_t scores_at_once(int64_t columns) { return std::clamp<int64_t>(65536 / columns / 16 * 16, 16, MOST_POSITIONS); }

// Rotary embedding of a row of d values, fp32, in place; backward: its gradient. Cosines and sines [d].
inline void rotate(float* row, const float* cos, const float* sin, int64_t d, bool backward) {
  const __m512 sign = _mm512_set1_ps(backward ? -1.f : 1.f);
  for (int64_t n = 0; n < d / 2; n += LANES) {
    const __m512 a = load(row + n), b = load(row + n + d / 2);
    const __m512 sin_a = _mm512_mul_ps(sign, load(sin + (backward ? n + d / 2 : n)));
    const __m512 sin_b = _mm512_mul_ps(sign, load(sin + (backward ? n : n + d / 2)));
    _mm512_storeu_ps(row + n, _mm512_fmsub_ps(a, load(cos + n), _mm512_mul_ps(b, sin_a)));
    _mm512_storeu_ps(row + n + d / 2, _mm512_fmadd_ps(b, load(cos + n + d / 2), _mm512_mul_ps(a, sin_b)));
  }
}

// [rows, d] transposed: packed panels of PANEL rows each, as the second operand of a product with other rows.
void turn_rows(const BFloat16* from, int64_t rows, int64_t d, BFloat16* to) {
  for (int64_t n = 0; n < rows; n += PANEL) turn(from + n * d, d, to + n * d);
}

// [M, rows] = a [M, d] times [rows, d] transposed, which `turn_rows` packed.
void products_with_rows(const BFloat16* a, const BFloat16* turned, int64_t M, int64_t rows, int64_t d, float* to) {
  for (int64_t n = 0; n < rows; n += PANEL) brgemm(M, PANEL, d, d, PANEL, rows, false, a, turned + n * d, to + n);
}

struct Shape {
  int64_t batch, P, D, heads, d, width, padded;
  Shape(const Tensor& x, int64_t heads, int64_t width)
      : batch(x.size(0)), P(x.size(1)), D(x.size(2)), heads(heads), d(width / heads), width(width),
        padded(rounded_up(x.size(1), PANEL)) {
    TORCH_CHECK(d * heads == width && d % PANEL == 0 && D % PANEL == 0, "heads of ", d, " in ", D,
                ": must be multiples of ", PANEL);
  }
};

void check_angles(const Tensor& t, const Shape& s) {
  TORCH_CHECK(t.numel() == 0 || (t.scalar_type() == at::kFloat && t.is_contiguous() && t.size(0) == s.P &&
                                 t.size(1) == s.d),
              "angles are ", t.scalar_type(), " ", t.sizes(), ", but must be empty or float [", s.P, ", ", s.d, "]");
}

// x [batch, P, D]; qkv [3 * width / PANEL, D / 2, PANEL, 2]; out [D / PANEL, width / 2, PANEL, 2]; cosines and sines fp32
// [P, d], or empty for no rotation. Returns y, and to keep: queries, keys and values [batch, heads, 3, P', d] (P' = P
// rounded up, zeros there), the attention output [batch, P, width], the log2 of the sums fp32 [batch, heads, P'], and
// the factors of the norm fp32 [batch * P].
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> attention_forward(const Tensor& x, const Tensor& qkv,
                                                                     const Tensor& out, const Tensor& cos,
                                                                     const Tensor& sin, int64_t heads, double eps,
                                                                     bool keep) {
  const Shape s(x, heads, out.size(1) * 2);
  const int64_t P = s.P, D = s.D, d = s.d, padded = s.padded;
  check(x, {s.batch, P, D}, "x");
  check(qkv, {3 * s.width / PANEL, D / 2, PANEL, 2}, "qkv");
  check(out, {D / PANEL, s.width / 2, PANEL, 2}, "out");
  check_angles(cos, s);
  check_angles(sin, s);
  const Tensor y = empty_like_of(x, {s.batch, P, D}), found = empty_like_of(x, {s.batch, P, s.width});
  const Tensor kept = empty_like_of(x, {keep ? s.batch : 0, heads, 3, padded, d});
  const Tensor logs = empty_like_of(x, {keep ? s.batch : 0, heads, padded}, at::kFloat);
  const Tensor factors = empty_like_of(x, {keep ? s.batch * P : 0}, at::kFloat);
  const BFloat16 *x_ = read(x), *qkv_ = read(qkv), *out_ = read(out);
  BFloat16 *y_ = write(y), *found_ = write(found), *kept_ = write(kept);
  float *logs_ = logs.mutable_data_ptr<float>(), *factors_ = factors.mutable_data_ptr<float>();
  const float *cos_ = cos.const_data_ptr<float>(), *sin_ = sin.const_data_ptr<float>();
  const bool rotates = cos.numel() > 0;
  const float scale = log2_scale(d);
  const int64_t most = scores_at_once(padded);
  const int64_t blocks = (P + MOST_POSITIONS - 1) / MOST_POSITIONS, block = (P + blocks - 1) / blocks;

  at::parallel_for(0, s.batch * heads, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> projected(MOST_POSITIONS * d), scores(most * padded);
    const Scratch<BFloat16> own(3 * padded * d), keys(padded * d), values(padded * d), probabilities(most * padded);
    for (int64_t item = begin; item < end; item++) {
      const int64_t b = item / heads, head = item % heads;
      BFloat16* q = keep ? kept_ + item * 3 * padded * d : own.data;
      for (int64_t part = 0; part < 3; part++) {
        BFloat16* to = q + part * padded * d;
        for (int64_t first = 0; first < P; first += block) {
          const int64_t M = std::min(block, P - first);
          for (int64_t n = 0; n < d; n += PANEL)
            brgemm(M, PANEL, D, D, PANEL, d, false, x_ + (b * P + first) * D, qkv_ + (part * s.width + head * d + n) * D,
                   projected + n);
          for (int64_t m = 0; m < M; m++) {
            float* row = projected + m * d;
            if (part < 2 && rotates) rotate(row, cos_ + (first + m) * d, sin_ + (first + m) * d, d, false);
            for (int64_t n = 0; n < d; n += LANES) store(to + (first + m) * d + n, load(row + n));
          }
        }
        std::memset(static_cast<void*>(to + P * d), 0, (padded - P) * d * sizeof(BFloat16));
      }
      turn_rows(q + padded * d, padded, d, keys);
      pair_rows(q + 2 * padded * d, padded, d, values);
      for (int64_t first = 0; first < P; first += most) {
        const int64_t M = std::min(most, P - first);
        products_with_rows(q + first * d, keys, M, padded, d, scores);
        for (int64_t m = 0; m < M; m++) {
          float* row = scores + m * padded;
          for (int64_t n = P; n < padded; n++) row[n] = -std::numeric_limits<float>::infinity();
          __m512 largest = load(row);
          for (int64_t n = LANES; n < padded; n += LANES) largest = _mm512_max_ps(largest, load(row + n));
          const float top = _mm512_reduce_max_ps(largest);
          __m512 sums = _mm512_setzero_ps();
          for (int64_t n = 0; n < padded; n += LANES) {
            // subtract first: the difference is exactly 0 at the maximum, however large that is
            const __m512 below = _mm512_sub_ps(load(row + n), _mm512_set1_ps(top));
            const __m512 p = power_of_two(_mm512_mul_ps(below, _mm512_set1_ps(scale)));
            sums = _mm512_add_ps(sums, p);
            store(probabilities + m * padded + n, p);
          }
          row[0] = _mm512_reduce_add_ps(sums);  // scores are no longer needed
          if (keep) logs_[item * padded + first + m] = top * scale + std::log2(row[0]);
        }
        brgemm(M, d, padded, padded, d, d, false, probabilities, values, projected);
        for (int64_t m = 0; m < M; m++) {
          const __m512 share = _mm512_set1_ps(1.f / scores[m * padded]);
          for (int64_t n = 0; n < d; n += LANES)
            store(found_ + (b * P + first + m) * s.width + head * d + n,
                  _mm512_mul_ps(load(projected + m * d + n), share));
        }
      }
      if (keep)  // so that the probabilities of padding queries are zero in the backward pass
        std::fill(logs_ + item * padded + P, logs_ + (item + 1) * padded, std::numeric_limits<float>::infinity());
    }
    brgemm_release();
  });

  const int64_t rows = s.batch * P, step = rows_at_once(rows);
  at::parallel_for(0, (rows + step - 1) / step, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> sum(step * D);
    for (int64_t part = begin; part < end; part++) {
      const int64_t first = part * step, M = std::min(step, rows - first);
      for (int64_t n = 0; n < D; n += PANEL)
        brgemm(M, PANEL, s.width, s.width, PANEL, D, false, found_ + first * s.width, out_ + n * s.width, sum + n);
      residual_norm(sum, x_ + first * D, y_ + first * D, M, D, eps, keep ? factors_ + first : nullptr);
    }
    brgemm_release();
  });
  return {y, kept, found, logs, factors};
}

// The gradients of all but the weights, and what the weights' gradients are products of. dy, y [batch, P, D]; the rest
// as kept; qkv [D / PANEL, 3 * width / 2, PANEL, 2] and out [width / PANEL, D / 2, PANEL, 2], for products with the
// transposed weights. Returns dx, d(queries, keys, values) [batch * P, 3 * width], d(x + out) [batch * P, D].
//
// With P the probabilities, S the scores: dV = P^T dO; dS = P * (dO V^T - rowsum(dO * O)); dQ = dS K; dK = dS^T Q.
// Keys are the rows here: of a block of keys, S^T and dS^T are computed for all queries.
std::tuple<Tensor, Tensor, Tensor> attention_backward(const Tensor& dy, const Tensor& y, const Tensor& kept,
                                                      const Tensor& found, const Tensor& logs, const Tensor& factors,
                                                      const Tensor& qkv, const Tensor& out, const Tensor& cos,
                                                      const Tensor& sin) {
  const int64_t heads = kept.size(1);
  const Shape s(y, heads, found.size(2));
  const int64_t P = s.P, D = s.D, d = s.d, padded = s.padded, rows = s.batch * P;
  check(dy, {s.batch, P, D}, "dy");
  check(y, {s.batch, P, D}, "y");
  check(kept, {s.batch, heads, 3, padded, d}, "kept");
  check(found, {s.batch, P, s.width}, "found");
  check(qkv, {D / PANEL, 3 * s.width / 2, PANEL, 2}, "qkv");
  check(out, {s.width / PANEL, D / 2, PANEL, 2}, "out");
  check_angles(cos, s);
  check_angles(sin, s);
  const Tensor dx = empty_like_of(y, {s.batch, P, D}), d_qkv = empty_like_of(y, {rows, 3 * s.width}),
               d_sum = empty_like_of(y, {rows, D}), d_found = empty_like_of(y, {s.batch, P, s.width});
  const BFloat16 *dy_ = read(dy), *y_ = read(y), *kept_ = read(kept), *qkv_ = read(qkv), *out_ = read(out),
                 *found_ = read(found);
  BFloat16 *dx_ = write(dx), *d_qkv_ = write(d_qkv), *d_sum_ = write(d_sum), *d_found_ = write(d_found);
  const float *logs_ = logs.const_data_ptr<float>(), *factors_ = factors.const_data_ptr<float>();
  const float *cos_ = cos.const_data_ptr<float>(), *sin_ = sin.const_data_ptr<float>();
  const bool rotates = cos.numel() > 0;
  const float scale = 1.f / std::sqrt(static_cast<float>(d)), power_scale = log2_scale(d);
  const int64_t step = rows_at_once(rows), parts = (rows + step - 1) / step, most = scores_at_once(padded);

  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> product(step * PANEL);
    for (int64_t part = begin; part < end; part++) {
      const int64_t first = part * step, M = std::min(step, rows - first);
      norm_backward(dy_ + first * D, y_ + first * D, factors_ + first, d_sum_ + first * D, M, D);
      for (int64_t n = 0; n < s.width; n += PANEL) {
        brgemm(M, PANEL, D, D, PANEL, PANEL, false, d_sum_ + first * D, out_ + n * D, product);
        for (int64_t m = 0; m < M; m++)
          for (int64_t i = 0; i < PANEL; i += LANES)
            store(d_found_ + (first + m) * s.width + n + i, load(product + m * PANEL + i));
      }
    }
    brgemm_release();
  });

  at::parallel_for(0, s.batch * heads, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> scores(most * padded), d_scores(most * padded), dots(padded), product(MOST_POSITIONS * d),
        dq_turned(d * padded), dq(padded * d);
    const Scratch<BFloat16> own_dy(padded * d), queries_turned(padded * d), queries(padded * d), dy_turned(padded * d),
        dy_pairs(padded * d), keys_turned(padded * d), keys(d * padded), p(most * padded), ds(most * padded),
        ds_pairs(most * padded);
    for (int64_t item = begin; item < end; item++) {
      const int64_t b = item / heads, head = item % heads;
      const BFloat16 *q = kept_ + item * 3 * padded * d, *k = q + padded * d, *v = k + padded * d;
      for (int64_t m = 0; m < P; m++) {
        const int64_t at = (b * P + m) * s.width + head * d;
        __m512 sums = _mm512_setzero_ps();
        for (int64_t n = 0; n < d; n += LANES) {
          const __m256i bits = load_bits(d_found_ + at + n);
          store(own_dy + m * d + n, bits);
          sums = _mm512_fmadd_ps(to_fp32(bits), load(found_ + at + n), sums);
        }
        dots[m] = _mm512_reduce_add_ps(sums);
      }
      std::memset(static_cast<void*>(own_dy + P * d), 0, (padded - P) * d * sizeof(BFloat16));
      std::memset(dots + P, 0, (padded - P) * sizeof(float));
      turn_rows(q, padded, d, queries_turned);
      turn_rows(own_dy, padded, d, dy_turned);
      pair_rows(q, padded, d, queries);
      pair_rows(own_dy, padded, d, dy_pairs);
      // the transposed keys, unpacked from pairs
      turn_rows(k, padded, d, keys_turned);
      for (int64_t n = 0; n < padded; n += PANEL)
        for (int64_t c = 0; c < d; c += 2)
          for (int64_t i = 0; i < PANEL; i += LANES) {
            const __m512i pairs = _mm512_loadu_si512(keys_turned + n * d + c * PANEL + 2 * i);
            store(keys + c * padded + n + i, _mm512_cvtepi32_epi16(pairs));
            store(keys + (c + 1) * padded + n + i, _mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16)));
          }

      const float* log = logs_ + item * padded;
      for (int64_t first = 0; first < padded; first += most) {
        const int64_t M = std::min(most, padded - first);
        products_with_rows(k + first * d, queries_turned, M, padded, d, scores);
        products_with_rows(v + first * d, dy_turned, M, padded, d, d_scores);
        for (int64_t m = 0; m < M; m += 2)
          for (int64_t n = 0; n < padded; n += LANES) {
            __m256i halves[2];
            for (int64_t i = 0; i < 2; i++) {
              const int64_t at = (m + i) * padded + n;
              // A probability is at most 1. The score of a padding key is 0, so without the min its probability would be
              // far above 1 for a query whose real scores are all very negative. If there is a NaN, min returns its
              // second operand.
              const __m512 power = _mm512_fmsub_ps(load(scores + at), _mm512_set1_ps(power_scale), load(log + n));
              const __m512 p_ = power_of_two(_mm512_min_ps(_mm512_setzero_ps(), power));
              const __m512 ds_ = _mm512_mul_ps(_mm512_mul_ps(p_, _mm512_set1_ps(scale)),
                                               _mm512_sub_ps(load(d_scores + at), load(dots + n)));
              store(p + at, p_);
              store(ds + at, halves[i] = to_bf16(ds_));
            }
            // packed in panels: [padded / PANEL, M / 2, PANEL, 2]
            store_pair(ds_pairs + n / PANEL * M * PANEL + m * PANEL + 2 * (n % PANEL), halves[0], halves[1]);
          }
        for (int64_t n = 0; n < padded; n += PANEL)
          brgemm(d, PANEL, M, padded, PANEL, padded, first > 0, keys + first, ds_pairs + n * M, dq_turned + n);
        const int64_t own_rows = std::min(M, P - first);
        for (int64_t part = 1; part < 3 && own_rows > 0; part++) {
          brgemm(own_rows, d, padded, padded, d, d, false, part == 1 ? ds : p, part == 1 ? queries : dy_pairs, product);
          for (int64_t m = 0; m < own_rows; m++) {
            const int64_t at = first + m;
            if (part == 1 && rotates) rotate(product + m * d, cos_ + at * d, sin_ + at * d, d, true);
            for (int64_t n = 0; n < d; n += LANES)
              store(d_qkv_ + (b * P + at) * 3 * s.width + part * s.width + head * d + n, load(product + m * d + n));
          }
        }
      }
      for (int64_t c = 0; c < d; c += 16)
        for (int64_t n = 0; n < padded; n += 16)
          turn_block(dq_turned + c * padded + n, 2 * padded, dq + n * d + c, 2 * d);
      for (int64_t m = 0; m < P; m++) {
        if (rotates) rotate(dq + m * d, cos_ + m * d, sin_ + m * d, d, true);
        for (int64_t n = 0; n < d; n += LANES)
          store(d_qkv_ + (b * P + m) * 3 * s.width + head * d + n, load(dq + m * d + n));
      }
    }
    brgemm_release();
  });

  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> product(step * PANEL);
    for (int64_t part = begin; part < end; part++) {
      const int64_t first = part * step, M = std::min(step, rows - first);
      add_product(d_qkv_ + first * 3 * s.width, qkv_, d_sum_ + first * D, dx_ + first * D, M, 3 * s.width, D, product);
    }
    brgemm_release();
  });
  return {dx, d_qkv, d_sum};
}

TORCH_LIBRARY_FRAGMENT(recursive_reasoning, library) {
  library.def(
      "attention(Tensor x, Tensor qkv, Tensor out, Tensor cos, Tensor sin, int heads, float eps, bool keep) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor)",
      on_cpu(attention_forward));
  library.def(
      "attention_backward(Tensor dy, Tensor y, Tensor kept, Tensor found, Tensor logs, Tensor factors, Tensor qkv, "
      "Tensor out, Tensor cos, Tensor sin) -> (Tensor, Tensor, Tensor)",
      on_cpu(attention_backward));
}

}  // namespace
