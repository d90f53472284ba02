// Random convolutions for tests, drawn so that every rare case is met: padding past the kernel, images of one pixel, strides
// over the kernel, one axis.
#pragma once

#include <algorithm>
#include <random>
#include <string>

#include "runtime/convolution/shape.h"

namespace openwork::test {

inline int64_t draw(std::mt19937& rng, int64_t least, int64_t most) {
  return least + static_cast<int64_t>(rng() % static_cast<unsigned>(most - least + 1));
}

inline ConvAxis random_axis(std::mt19937& rng) {
  ConvAxis a{draw(rng, 1, rng() % 3 ? 3 : 7), draw(rng, 1, 3), draw(rng, 1, rng() % 2 ? 1 : 3), 0, 0};
  if (rng() % 4) {
    a.pad_begin = draw(rng, 0, a.kernel + 1);
    a.pad_end = rng() % 2 ? a.pad_begin : draw(rng, 0, a.kernel);
  }
  return a;
}

// The least and a few larger sizes that the kernel fits into.
inline int64_t random_size(const ConvAxis& a, std::mt19937& rng) {
  const int64_t least = std::max<int64_t>(1, a.reach() - a.pad_begin - a.pad_end);
  return draw(rng, least, least + (rng() % 3 ? 12 : 2));
}

inline ConvGeometry random_geometry(std::mt19937& rng) {
  ConvShape shape;
  shape.groups = rng() % 3 ? 1 : draw(rng, 1, 5);
  shape.channels = shape.groups * (rng() % 5 ? draw(rng, 1, 24) : 64 / (rng() % 2 + 1));
  shape.n = shape.groups * draw(rng, 1, rng() % 2 ? 4 : 40);
  if (rng() % 6 == 0) shape.n = shape.channels = shape.groups = draw(rng, 1, 70);  // depthwise
  shape.width = random_axis(rng);
  if (rng() % 4) shape.height = random_axis(rng);
  const int64_t height = random_size(shape.height, rng), width = random_size(shape.width, rng);
  return make_geometry(shape, draw(rng, 1, 3), height, width);
}

inline std::string describe(const ConvAxis& a) {
  return "kernel " + std::to_string(a.kernel) + " stride " + std::to_string(a.stride) + " dilation " + std::to_string(a.dilation) +
         " pads " + std::to_string(a.pad_begin) + ", " + std::to_string(a.pad_end);
}

inline std::string describe(const ConvGeometry& g) {
  return std::string("[") + std::to_string(g.batch) + ", " + std::to_string(g.in_height) + ", " + std::to_string(g.in_width) + ", " +
         std::to_string(g.shape.channels) + "] to " + std::to_string(g.shape.n) + " channels, " + std::to_string(g.shape.groups) +
         " groups, height " + describe(g.shape.height) + ", width " + describe(g.shape.width);
}

}  // namespace openwork::test
