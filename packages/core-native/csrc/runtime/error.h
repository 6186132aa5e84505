// The one error of the native side. The binding turns it into a DsError of the same fields.
#pragma once
#include <exception>
#include <string>
#include <utility>

namespace ds {

struct Error : std::exception {
  std::string code, op, expected, actual, hint;
  mutable std::string text;

  Error(std::string code, std::string op, std::string expected, std::string actual, std::string hint = "")
      : code(std::move(code)),
        op(std::move(op)),
        expected(std::move(expected)),
        actual(std::move(actual)),
        hint(std::move(hint)) {}

  const char* what() const noexcept override {
    text = op + ": expected " + expected + ", got " + actual;
    return text.c_str();
  }
};

}  // namespace ds
