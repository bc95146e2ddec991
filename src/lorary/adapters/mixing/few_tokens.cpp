// Calls of a few tokens, fused: what a score keeps, and what the kept experts add. float32, on the CPU.
// Plain loops over contiguous memory; the same sums as the paths in mixing.py and scored.py, in another order.

#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <tuple>
#include <vector>

namespace {

float dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void add(float* to, const float* from, float times, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] += times * from[i];
}

// scores (..., P) -> softmax over the k largest, largest first, ties to the lower index, and their indices (..., k).
std::tuple<at::Tensor, at::Tensor> keep(const at::Tensor& scores, int64_t k, double temperature) {
  const auto s = scores.contiguous();
  const int64_t p = s.size(-1), n = s.numel() / p;
  auto sizes = s.sizes().vec();
  sizes.back() = k;
  auto weights = at::empty(sizes, s.options());
  auto experts = at::empty(sizes, s.options().dtype(at::kLong));
  for (int64_t t = 0; t < n; ++t) {
    const float* score = s.const_data_ptr<float>() + t * p;
    float* best = weights.mutable_data_ptr<float>() + t * k;
    int64_t* index = experts.mutable_data_ptr<int64_t>() + t * k;
    int64_t found = 0;
    for (int64_t e = 0; e < p; ++e) {
      if (found == k && !(score[e] > best[k - 1])) continue;
      int64_t place = found < k ? found++ : k - 1;
      for (; place > 0 && score[e] > best[place - 1]; --place) {
        best[place] = best[place - 1];
        index[place] = index[place - 1];
      }
      best[place] = score[e];
      index[place] = e;
    }
    const float largest = best[0];
    float sum = 0;
    for (int64_t i = 0; i < k; ++i) sum += best[i] = std::exp((best[i] - largest) / static_cast<float>(temperature));
    for (int64_t i = 0; i < k; ++i) best[i] /= sum;
  }
  return {weights, experts};
}

// x (N, d_in), y (N, d_out), a (E * rank, d_in), b (E * rank, d_out), experts and weights (N, k) -> y + the mix.
at::Tensor mix(const at::Tensor& x_, const at::Tensor& y_, const at::Tensor& a, const at::Tensor& b,
               const at::Tensor& experts_, const at::Tensor& weights_, int64_t rank, double scale, bool factors) {
  const auto x = x_.contiguous(), y = y_.contiguous(), experts = experts_.contiguous(), weights = weights_.contiguous();
  const int64_t d_in = a.size(1), d_out = b.size(1), k = experts.size(-1), n = x.numel() / d_in;
  auto out = y.clone();
  std::vector<float> z(k * rank), u(rank);
  for (int64_t t = 0; t < n; ++t) {
    const int64_t* expert = experts.const_data_ptr<int64_t>() + t * k;
    const float* w = weights.const_data_ptr<float>() + t * k;
    const float* token = x.const_data_ptr<float>() + t * d_in;
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < rank; ++j)
        z[i * rank + j] = w[i] * dot(a.const_data_ptr<float>() + (expert[i] * rank + j) * d_in, token, d_in);
    if (factors) {
      for (int64_t j = 0; j < rank; ++j) {
        u[j] = 0;
        for (int64_t i = 0; i < k; ++i) u[j] += z[i * rank + j];
      }
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = 0; j < rank; ++j) z[i * rank + j] = w[i] * u[j];
    }
    float* to = out.mutable_data_ptr<float>() + t * d_out;
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < rank; ++j)
        add(to, b.const_data_ptr<float>() + (expert[i] * rank + j) * d_out, static_cast<float>(scale) * z[i * rank + j], d_out);
  }
  return out;
}

}  // namespace

TORCH_LIBRARY(lorary, m) {
  m.def("keep(Tensor scores, int k, float temperature) -> (Tensor, Tensor)");
  m.def(
      "mix(Tensor x, Tensor y, Tensor a, Tensor b, Tensor experts, Tensor weights, int rank, float scale, "
      "bool factors) -> Tensor");
}

TORCH_LIBRARY_IMPL(lorary, CPU, m) {
  m.impl("keep", keep);
  m.impl("mix", mix);
}
