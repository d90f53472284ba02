// Arrays of Python as the types that the native part takes. Type, rank and order stand in the parameter types.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "runtime/buffer.h"
#include "runtime/given.h"

namespace openwork::bind {

namespace nb = nanobind;

template <class T, int rank>
using Array = nb::ndarray<const T, nb::ndim<rank>, nb::c_contig, nb::device::cpu>;
using Floats1 = Array<float, 1>;
using AnyArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

template <class A>
std::vector<int64_t> shape_of(const A& array) {
  std::vector<int64_t> shape;
  for (size_t i = 0; i < array.ndim(); ++i) shape.push_back(static_cast<int64_t>(array.shape(i)));
  return shape;
}

// The type of an array's elements, BF16 as uint16. Throws std::invalid_argument, which begins with `where` ("Expected input 0").
DType dtype_of(nb::dlpack::dtype type, const std::string& where);
// Borrows the array's memory and keeps the array alive.
Tensor tensor_of(const AnyArray& array, const std::string& where);

// Arrays and attributes of Python by name, both in one dictionary or in two: what is None counts as absent. Throws
// std::invalid_argument that names what is neither.
void add_tensors(const nb::dict& tensors, const std::string& place, Given& given);
void add_attributes(const nb::dict& attributes, const std::string& place, Given& given);
Given given_of(const nb::kwargs& named, const std::string& place);

// A new NumPy array that owns the buffer.
nb::object to_numpy(AlignedBuffer buffer, DType dtype, const std::vector<int64_t>& shape);
// BF16 comes as uint16.
nb::object to_numpy(AlignedBuffer buffer, Stored type, const std::vector<int64_t>& shape);

void bind_program(nb::module_& m);
void bind_linear(nb::module_& m);
void bind_peak(nb::module_& m);
void bind_convolution(nb::module_& m);

}  // namespace openwork::bind
