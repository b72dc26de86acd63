// The SwiGLU sublayer of a post-norm block, y = norm(x + down(silu(gate(x)) * up(x))), on CPUs with AVX-512 bf16.
//
// Rows (or columns, where the network runs over positions) are taken a few at a time, so that all that is computed of
// them stays in the L2 cache of a core: each value of x is read once and each value of y written once, and threads meet
// once a sublayer. What the formula rounds to bf16 outside is rounded here too: gate, up, their product, and gradients
// between products.

#include <ATen/ops/zeros.h>

#include "common.h"

namespace {

using namespace fused;

constexpr int64_t COLUMNS = 128;  // columns computed at once, where the network runs over positions

// 1 / (1 + e^-x), relative error below 2e-4
inline __m512 sigmoid(__m512 x) {
  const __m512 e = power_of_two(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)));
  return _mm512_rcp14_ps(_mm512_add_ps(_mm512_set1_ps(1.f), e));
}

inline __m512 swiglu(__m512 gate, __m512 up) { return _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid(gate)), up); }

void check_widths(int64_t D, int64_t I) {
  TORCH_CHECK(D % PANEL == 0 && I % PANEL == 0, "width ", D, " and inner width ", I, " must be multiples of ", PANEL);
}

struct Gradients {
  __m512 gate, up, product;  // product: silu(gate) * up, computed again
};

inline Gradients swiglu_backward(__m512 d, __m512 gate, __m512 up) {
  const __m512 one = _mm512_set1_ps(1.f);
  const __m512 s = sigmoid(gate), silu = _mm512_mul_ps(gate, s);
  // d silu / d gate = s (1 + gate (1 - s))
  const __m512 slope = _mm512_mul_ps(s, _mm512_fmadd_ps(gate, _mm512_sub_ps(one, s), one));
  return {_mm512_mul_ps(_mm512_mul_ps(d, up), slope), _mm512_mul_ps(d, silu), _mm512_mul_ps(silu, up)};
}

// -- over the last axis -----------------------------------------------------------------------------------------------

// x [rows, D]; gate_up [2 I / PANEL, D / 2, PANEL, 2]; down [D / PANEL, I / 2, PANEL, 2].
// Returns y [rows, D] and, to keep, gate and up [rows, 2 I] and the factor of the norm, fp32 [rows]: else both empty.
std::tuple<Tensor, Tensor, Tensor> rows_forward(const Tensor& x, const Tensor& gate_up, const Tensor& down, double eps,
                                                bool keep) {
  const int64_t rows = x.size(0), D = x.size(1), I = down.size(1) * 2;
  check_widths(D, I);
  check(x, {rows, D}, "x");
  check(gate_up, {2 * I / PANEL, D / 2, PANEL, 2}, "gate_up");
  check(down, {D / PANEL, I / 2, PANEL, 2}, "down");
  const Tensor y = empty_like_of(x, {rows, D});
  const Tensor kept = empty_like_of(x, {keep ? rows : 0, 2 * I});
  const Tensor factors = empty_like_of(x, {keep ? rows : 0}, at::kFloat);
  const int64_t step = rows_at_once(rows), parts = (rows + step - 1) / step;
  const BFloat16 *x_ = read(x), *gate_up_ = read(gate_up), *down_ = read(down);
  BFloat16 *y_ = write(y), *kept_ = write(kept);
  float* factors_ = factors.mutable_data_ptr<float>();

  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> gate(step * PANEL), up(step * PANEL), sum(step * D);
    const Scratch<BFloat16> product(step * I);
    for (int64_t part = begin; part < end; part++) {
      const int64_t first = part * step, M = std::min(step, rows - first);
      const BFloat16* own = x_ + first * D;
      for (int64_t j = 0; j < I; j += PANEL) {
        brgemm(M, PANEL, D, D, PANEL, PANEL, false, own, gate_up_ + j * D, gate);
        brgemm(M, PANEL, D, D, PANEL, PANEL, false, own, gate_up_ + (I + j) * D, up);
        for (int64_t m = 0; m < M; m++) {
          for (int64_t n = 0; n < PANEL; n += LANES) {
            const __m512 g = rounded(load(gate + m * PANEL + n)), u = rounded(load(up + m * PANEL + n));
            store(product + m * I + j + n, swiglu(g, u));
            if (keep) {
              BFloat16* row = kept_ + (first + m) * 2 * I + j + n;
              store(row, g);
              store(row + I, u);
            }
          }
        }
      }
      for (int64_t n = 0; n < D; n += PANEL)
        brgemm(M, PANEL, I, I, PANEL, D, false, product, down_ + n * I, sum + n);
      residual_norm(sum, own, y_ + first * D, M, D, eps, keep ? factors_ + first : nullptr);
    }
    brgemm_release();
  });
  return {y, kept, factors};
}

// The gradients of all but the weights, and what the weights' gradients are products of.
// dy, y [rows, D]; gate_up [D / PANEL, I, PANEL, 2] and down [I / PANEL, D / 2, PANEL, 2], for products with the
// transposed weights. Returns dx [rows, D], d(gate, up) [rows, 2 I], silu(gate) * up [rows, I], d(x + mlp) [rows, D].
std::tuple<Tensor, Tensor, Tensor, Tensor> rows_backward(const Tensor& dy, const Tensor& y, const Tensor& kept,
                                                         const Tensor& factors, const Tensor& gate_up,
                                                         const Tensor& down) {
  const int64_t rows = y.size(0), D = y.size(1), I = gate_up.size(1);
  check_widths(D, I);
  check(dy, {rows, D}, "dy");
  check(y, {rows, D}, "y");
  check(kept, {rows, 2 * I}, "kept");
  check(gate_up, {D / PANEL, I, PANEL, 2}, "gate_up");
  check(down, {I / PANEL, D / 2, PANEL, 2}, "down");
  const Tensor dx = empty_like_of(y, {rows, D}), d_gate_up = empty_like_of(y, {rows, 2 * I}),
               product = empty_like_of(y, {rows, I}), d_sum = empty_like_of(y, {rows, D});
  const int64_t step = rows_at_once(rows), parts = (rows + step - 1) / step;
  const BFloat16 *dy_ = read(dy), *y_ = read(y), *kept_ = read(kept), *gate_up_ = read(gate_up), *down_ = read(down);
  const float* factors_ = factors.const_data_ptr<float>();
  BFloat16 *dx_ = write(dx), *d_gate_up_ = write(d_gate_up), *product_ = write(product), *d_sum_ = write(d_sum);

  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> d_product(step * PANEL), sum(step * PANEL);
    for (int64_t part = begin; part < end; part++) {
      const int64_t first = part * step, M = std::min(step, rows - first);
      norm_backward(dy_ + first * D, y_ + first * D, factors_ + first, d_sum_ + first * D, M, D);
      for (int64_t j = 0; j < I; j += PANEL) {
        brgemm(M, PANEL, D, D, PANEL, PANEL, false, d_sum_ + first * D, down_ + j * D, d_product);
        for (int64_t m = 0; m < M; m++) {
          for (int64_t n = 0; n < PANEL; n += LANES) {
            const int64_t at = (first + m) * 2 * I + j + n;
            const Gradients d =
                swiglu_backward(rounded(load(d_product + m * PANEL + n)), load(kept_ + at), load(kept_ + at + I));
            store(d_gate_up_ + at, d.gate);
            store(d_gate_up_ + at + I, d.up);
            store(product_ + (first + m) * I + j + n, d.product);
          }
        }
      }
      add_product(d_gate_up_ + first * 2 * I, gate_up_, d_sum_ + first * D, dx_ + first * D, M, 2 * I, D, sum);
    }
    brgemm_release();
  });
  return {dx, d_gate_up, product, d_sum};
}

// -- over the positions -----------------------------------------------------------------------------------------------

// The same of x [batch, P, D] over its middle axis, in stripes of N <= COLUMNS; weights are the first operands here.
// gate_up [2 I, P'], P' = P rounded up to even with zeros; down [P, I].
// Returns y, and to keep: gate and up [batch, D * 2 I], each stripe [2 I, N], factors fp32 [batch, D].
std::tuple<Tensor, Tensor, Tensor> positions_forward(const Tensor& x, const Tensor& gate_up, const Tensor& down,
                                                     double eps, bool keep) {
  const int64_t batch = x.size(0), P = x.size(1), D = x.size(2), I = down.size(1), even = P + P % 2,
                stripes = (D + COLUMNS - 1) / COLUMNS;
  check_widths(D, I);
  check(x, {batch, P, D}, "x");
  check(gate_up, {2 * I, even}, "gate_up");
  check(down, {P, I}, "down");
  const Tensor y = empty_like_of(x, {batch, P, D});
  const Tensor kept = empty_like_of(x, {keep ? batch : 0, D * 2 * I});
  const Tensor factors = empty_like_of(x, {keep ? batch : 0, D}, at::kFloat);
  const BFloat16 *x_ = read(x), *gate_up_ = read(gate_up), *down_ = read(down);
  BFloat16 *y_ = write(y), *kept_ = write(kept);
  float* factors_ = factors.mutable_data_ptr<float>();

  at::parallel_for(0, batch * stripes, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> gate(PANEL * COLUMNS), up(PANEL * COLUMNS), sum(P * COLUMNS);
    const Scratch<BFloat16> pairs(even * COLUMNS), product(I * COLUMNS);
    for (int64_t part = begin; part < end; part++) {
      const int64_t b = part / stripes, column = part % stripes * COLUMNS, N = std::min(COLUMNS, D - column);
      const BFloat16* own = x_ + b * P * D + column;
      for (int64_t p = 0; p < even; p += 2)
        for (int64_t n = 0; n < N; n += LANES) {
          const __m256i zero = _mm256_setzero_si256();
          const __m256i next = p + 1 < P ? load_bits(own + (p + 1) * D + n) : zero;
          store_pair(pairs + p * N + 2 * n, load_bits(own + p * D + n), next);
        }
      for (int64_t i = 0; i < I; i += PANEL) {
        brgemm(PANEL, N, even, even, N, N, false, gate_up_ + i * even, pairs, gate);
        brgemm(PANEL, N, even, even, N, N, false, gate_up_ + (I + i) * even, pairs, up);
        for (int64_t m = 0; m < PANEL; m += 2)
          for (int64_t n = 0; n < N; n += LANES) {
            __m256i halves[2];
            for (int64_t k = 0; k < 2; k++) {
              const int64_t at = (m + k) * N + n;
              const __m512 g = rounded(load(gate + at)), u = rounded(load(up + at));
              halves[k] = to_bf16(swiglu(g, u));
              if (keep) {
                BFloat16* row = kept_ + (b * D + column) * 2 * I + (i + m + k) * N + n;
                store(row, g);
                store(row + I * N, u);
              }
            }
            store_pair(product + (i + m) * N + 2 * n, halves[0], halves[1]);
          }
      }
      brgemm(P, N, I, I, N, N, false, down_, product, sum);
      for (int64_t n = 0; n < N; n += LANES) {
        __m512 squares = _mm512_setzero_ps();
        for (int64_t p = 0; p < P; p++) {
          const __m512 u = _mm512_add_ps(load(sum + p * N + n), load(own + p * D + n));
          squares = _mm512_fmadd_ps(u, u, squares);
          _mm512_storeu_ps(sum + p * N + n, u);
        }
        const __m512 mean = _mm512_div_ps(squares, _mm512_set1_ps(P));
        const __m512 factor = _mm512_div_ps(
            _mm512_set1_ps(1.f), _mm512_sqrt_ps(_mm512_add_ps(mean, _mm512_set1_ps(static_cast<float>(eps)))));
        for (int64_t p = 0; p < P; p++)
          store(y_ + (b * P + p) * D + column + n, _mm512_mul_ps(load(sum + p * N + n), factor));
        if (keep) _mm512_storeu_ps(factors_ + b * D + column + n, factor);
      }
    }
    brgemm_release();
  });
  return {y, kept, factors};
}

// x, dy, y [batch, P, D]; gate_up [P, 2 I] and down [I, P'], the transposed weights.
// Returns dx, and the gradients of the weights in fp32: of gate_up [2 I / PANEL, P, PANEL], transposed within each
// panel, and of down [I / PANEL, P, PANEL]. Each thread sums its own part; the parts are added in their order.
std::tuple<Tensor, Tensor, Tensor> positions_backward(const Tensor& dy, const Tensor& x, const Tensor& y,
                                                      const Tensor& kept, const Tensor& factors, const Tensor& gate_up,
                                                      const Tensor& down) {
  const int64_t batch = y.size(0), P = y.size(1), D = y.size(2), I = down.size(0), even = P + P % 2,
                stripes = (D + COLUMNS - 1) / COLUMNS;
  check_widths(D, I);
  check(dy, {batch, P, D}, "dy");
  check(x, {batch, P, D}, "x");
  check(y, {batch, P, D}, "y");
  check(kept, {batch, D * 2 * I}, "kept");
  check(gate_up, {P, 2 * I}, "gate_up");
  check(down, {I, even}, "down");
  const int64_t parts = batch * stripes, threads = std::min<int64_t>(at::get_num_threads(), parts);
  const Tensor dx = empty_like_of(y, {batch, P, D});
  const Tensor d_gate_up = at::zeros({threads, 2 * I / PANEL, P, PANEL}, y.options().dtype(at::kFloat));
  const Tensor d_down = at::zeros({threads, I / PANEL, P, PANEL}, y.options().dtype(at::kFloat));
  const BFloat16 *dy_ = read(dy), *x_ = read(x), *y_ = read(y), *kept_ = read(kept), *gate_up_ = read(gate_up),
                 *down_ = read(down);
  const float* factors_ = factors.const_data_ptr<float>();
  BFloat16* dx_ = write(dx);
  float *d_gate_up_ = d_gate_up.mutable_data_ptr<float>(), *d_down_ = d_down.mutable_data_ptr<float>();

  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> d_product(PANEL * COLUMNS), sum(P * COLUMNS);
    const Scratch<BFloat16> d_sum(P * COLUMNS), pairs(even * COLUMNS), d_pairs(2 * I * COLUMNS), gate(PANEL * COLUMNS),
        up(PANEL * COLUMNS), product(PANEL * COLUMNS), turned(PANEL * COLUMNS);
    for (int64_t thread = begin; thread < end; thread++) {
      float *own_gate_up = d_gate_up_ + thread * 2 * I * P, *own_down = d_down_ + thread * I * P;
      for (int64_t part = parts * thread / threads; part < parts * (thread + 1) / threads; part++) {
        const int64_t b = part / stripes, column = part % stripes * COLUMNS, N = std::min(COLUMNS, D - column);
        const int64_t own = b * P * D + column;
        for (int64_t n = 0; n < N; n += LANES) {
          __m512 dots = _mm512_setzero_ps();
          for (int64_t p = 0; p < P; p++)
            dots = _mm512_fmadd_ps(load(dy_ + own + p * D + n), load(y_ + own + p * D + n), dots);
          const __m512 mean = _mm512_div_ps(dots, _mm512_set1_ps(P)), factor = load(factors_ + b * D + column + n);
          for (int64_t p = 0; p < even; p += 2) {
            __m256i halves[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
            for (int64_t k = 0; k < 2 && p + k < P; k++) {
              const int64_t at = own + (p + k) * D + n;
              halves[k] = to_bf16(_mm512_mul_ps(factor, _mm512_fnmadd_ps(load(y_ + at), mean, load(dy_ + at))));
              store(d_sum + (p + k) * N + n, halves[k]);
            }
            store_pair(pairs + p * N + 2 * n, halves[0], halves[1]);
          }
        }
        for (int64_t i = 0; i < I; i += PANEL) {
          brgemm(PANEL, N, even, even, N, N, false, down_ + i * even, pairs, d_product);
          const BFloat16* kept_gate = kept_ + (b * D + column) * 2 * I + i * N;
          for (int64_t m = 0; m < PANEL; m += 2)
            for (int64_t n = 0; n < N; n += LANES) {
              __m256i gates[2], ups[2];
              for (int64_t k = 0; k < 2; k++) {
                const int64_t at = (m + k) * N + n;
                const Gradients d = swiglu_backward(rounded(load(d_product + at)), load(kept_gate + at),
                                                    load(kept_gate + I * N + at));
                store(gate + at, gates[k] = to_bf16(d.gate));
                store(up + at, ups[k] = to_bf16(d.up));
                store(product + at, d.product);
              }
              store_pair(d_pairs + (i + m) * N + 2 * n, gates[0], gates[1]);
              store_pair(d_pairs + (I + i + m) * N + 2 * n, ups[0], ups[1]);
            }
          turn(gate, N, turned);
          brgemm(P, PANEL, N, D, PANEL, PANEL, true, x_ + own, turned, own_gate_up + i * P);
          turn(up, N, turned);
          brgemm(P, PANEL, N, D, PANEL, PANEL, true, x_ + own, turned, own_gate_up + (I + i) * P);
          turn(product, N, turned);
          brgemm(P, PANEL, N, N, PANEL, PANEL, true, d_sum, turned, own_down + i * P);
        }
        brgemm(P, N, 2 * I, 2 * I, N, N, false, gate_up_, d_pairs, sum);
        for (int64_t p = 0; p < P; p++)
          for (int64_t n = 0; n < N; n += LANES)
            store(dx_ + own + p * D + n,
                  _mm512_add_ps(load(sum + p * N + n), load(d_sum + p * N + n)));
      }
    }
    brgemm_release();
  });
  return {dx, d_gate_up.sum(0), d_down.sum(0)};
}

TORCH_LIBRARY_FRAGMENT(recursive_reasoning, library) {
  library.def("swiglu_rows(Tensor x, Tensor gate_up, Tensor down, float eps, bool keep) -> (Tensor, Tensor, Tensor)",
              on_cpu(rows_forward));
  library.def(
      "swiglu_positions(Tensor x, Tensor gate_up, Tensor down, float eps, bool keep) -> (Tensor, Tensor, Tensor)",
      on_cpu(positions_forward));
  library.def(
      "swiglu_rows_backward(Tensor dy, Tensor y, Tensor kept, Tensor factors, Tensor gate_up, Tensor down) -> "
      "(Tensor, Tensor, Tensor, Tensor)",
      on_cpu(rows_backward));
  library.def(
      "swiglu_positions_backward(Tensor dy, Tensor x, Tensor y, Tensor kept, Tensor factors, Tensor gate_up, "
      "Tensor down) -> (Tensor, Tensor, Tensor)",
      on_cpu(positions_backward));
}

}  // namespace
