"""Answers of every kind: spellings of one meaning are equal, those of another are not, and keys agree with that."""

from itertools import combinations

import pytest

from freeprm.core.answers import canonical, equivalent

# Of each kind, classes of answers that mean the same; answers of two classes never do.
KINDS: dict[str, list[list[str]]] = {
    "upright constants": [
        ["2+\\mathrm{e}", "2+e", "e+2", "2 + \\text{e}", "2+exp(1)"],
        ["2-\\mathrm{e}", "2-e", "-e+2"],
        ["2"],
        ["\\frac{3}{\\mathrm{e}}", "3e^{-1}", "3/\\mathrm{e}", "\\frac3e"],
        ["3"],
        ["\\mathrm{e}^{2}", "e^2", "exp(2)", "\\exp(2)", "e**2"],
        ["1+\\mathrm{i}", "1+i", "i+1"],
        ["1-\\mathrm{i}", "1-i"],
    ],
    "fractions without braces": [
        ["1999+\\frac\\pi 3", "1999+\\frac{\\pi}{3}", "\\frac\\pi3+1999", "1999 + pi/3"],
        ["1998+\\frac\\pi 3", "1998+\\frac{\\pi}3"],
        ["3"],
        ["\\frac\\pi 3", "\\dfrac{\\pi}{3}", "{\\pi \\over 3}", "π/3", "\\frac{1}{3}\\pi"],
        ["\\frac 3\\pi", "3/\\pi"],
        ["\\frac 27", "\\frac{2}{7}", "2/7", "\\tfrac27", "2⁄7", "\\cfrac{2}{7}"],
        ["\\frac 72", "3.5", "3½", "3\\frac12", "3 1/2", "7/2"],
    ],
    "roots": [
        ["3\\sqrt(7)", "3\\sqrt{7}", "3√7", "3*sqrt(7)", "\\sqrt{63}", "3\\sqrt7", "3 \\cdot \\sqrt{7}",
         "\\sqrt{7}\\cdot 3"],
        ["3\\sqrt(6)", "3√6", "\\sqrt{54}"],
        ["3"],
        ["\\sqrt[3]{7}", "7^{1/3}", "7**(1/3)", "\\sqrt[3]7", "∛7"],
        ["7"],
        ["-\\sqrt(7)", "-√7"],
        ["8+\\sqrt(7)", "\\sqrt7+8"],
    ],
    "repeating decimals": [
        ["0.\\overline{4}", "4/9", "0.444...", "0.\\overline4", "0.\\bar{4}", "0.(4)", "0.\\dot{4}", "0.4444\\ldots"],
        ["0.4", "\\frac25", "40\\%"],
        ["0"],
        ["0.\\overline{45}", "5/11", "0.4545...", "0.\\dot4\\dot5"],
        ["0.\\overline{54}", "6/11"],
        ["0.4\\overline{5}", "41/90", "0.4555..."],
        ["2.\\overline{6}", "8/3", "2\\frac23", "2 2/3"],
        ["1.\\overline{9}"],
        ["-0.\\overline{4}", "-\\frac49"],
    ],
    "mixed numbers": [
        ["4\\frac{2}{5}", "4 2/5", "22/5", "4.4", "4\\frac25", "4\\dfrac{2}{5}", "4⅖"],
        ["-4\\frac{2}{5}", "-4.4", "-4 2/5"],
        ["4\\frac{3}{5}", "4.6"],
        ["4"],
        ["\\frac{2}{5}", ".4"],
        ["\\frac{8}{5}", "1.6"],
    ],
    "percent": [
        ["37.5\\%", "37.5", "37\\frac12\\%", "37.50 percent", "37 1/2 %", "\\frac{75}{2}\\%",
         "37.5\\text{ percent}", "37.5%"],
        ["37\\%", "37", "37.0\\%", "37 pct"],
        ["36.5\\%", "36\\frac{1}{2}"],
        ["3.75\\%"],
        ["38 percent", "38.0 \\%"],
    ],
    "thousands": [
        ["\\frac{2{,}500}{7}", "\\frac{2500}{7}", "\\frac{2,500}{7}", "2,500/7"],
        ["2{,}500\\pi", "2,500\\pi", "2500\\pi", "2\\,500\\pi", "2,\\!500\\pi", "2{,}500 π"],
        ["2\\pi"],
        ["500\\pi"],
        ["2,500", "2{,}500", "2500", "2500.00", "2\\,500", "2 500", "x = 2,500", "\\text{Sum} = \\$2,500",
         "2,\\! 500"],
        ["2, 500", "(2) \\text{ and } 500"],
        ["12,34,567", "1234567", "1,234,567"],
    ],
    "bases": [
        ["43_7", "43_{7}", "43_{\\text{seven}}", "43_{\\text{(7)}}", "43_{(7)}"],
        ["43_8", "43_{\\text{eight}}"],
        ["43_9"],
        ["42_7"],
        ["-43_7"],
        ["1A_{16}", "1\\text{A}_{16}", "\\text{1A}_{16}"],
        ["1B_{16}"],
        ["10110_2", "10110_{\\text{two}}"],
    ],
    "small numbers": [
        ["\\frac{1}{20!}", "1/20!", "\\frac1{20!}"],
        ["\\frac{1}{21!}"],
        ["\\frac{\\pi}{30!}"],
        ["\\frac{\\pi}{31!}"],
        ["1.5e-8", "1.5 \\times 10^{-8}", "15e-9", "1.5*10^-8", "0.000000015"],
        ["2.5e-8", "2.5\\cdot10^{-8}"],
        ["1.6e-8"],
        ["1.5e-9"],
        ["e^{-40}"],
        ["e^{-41}"],
        ["0"],
    ],
    "scientific": [
        ["3.2 \\times 10^{5}", "3.2e5", "320000", "320,000", "3.2 × 10⁵", "3.2E+05", "3.2\\cdot10^5", "0.32*10**6"],
        ["3.2 \\times 10^{-5}", "0.000032", "3.2E-05"],
        ["3.2 \\times 10^{6}"],
    ],
    "units": [
        ["12\\text{ m}", "12 m", "12 meters", "1200 cm", "0.012\\,\\mathrm{km}", "12\\ \\text{m}"],
        ["12\\text{ cm}", "12 cm", "12 centimeters", "120 mm"],
        ["12 km"],
        ["12 kg", "12000\\text{ g}", "12 kilograms"],
        ["12 seconds", "12\\text{ s}"],
        ["12 minutes", "720 seconds", "12\\text{ min}"],
        ["12 hours", "720 minutes"],
        ["12\\text{ m/s}", "12\\,\\mathrm{m\\,s^{-1}}", "12 meters per second"],
        ["12\\text{ km/h}", "12 kilometers per hour"],
    ],
    "areas": [
        ["9\\text{ square units}", "9 \\text{ units}^2", "9\\text{ sq. units}"],
        ["10\\text{ units}^3"], ["8\\text{ units}^2"],
    ],
    "money": [
        ["5.4 dollars", "\\$5.40", "$5.40", "540 cents", "5.40\\text{ dollars}", "\\$ 5.4"],
        ["5.4 cents", "5.4\\text{ cents}"],
        ["5.4 euros", "€5.4"],
        ["\\$5.4\\text{ million}", "\\$5,400,000", "5.4 million dollars", "\\$5.4 million"],
        ["\\$5.4 thousand"],
    ],
    "directions": [
        ["7\\text{ km north}", "7 km north"],
        ["7\\text{ km south}"],
        ["7\\text{ PM}", "7 p.m.", "7\\text{ p.m.}"],
        ["7\\text{ AM}", "7 a.m."],
        ["\\$7\\text{ profit}", "7 dollars profit"],
        ["\\$7\\text{ loss}"],
    ],
    "clocks": [
        ["6:45", "6\\!:\\!45", "6 : 45"],
        ["7:45"],
        ["6:54"],
        ["6"],
    ],
    "clocks of a day": [["6:45 AM", "6\\!:\\!45\\text{ a.m.}", "6:45 am"], ["6:45 PM",
    "6:45\\text{ p.m.}"], ["7:45 AM"]],
    "ratios": [["3:5", "6:10", "3 : 5", "3/5"], ["5:3"], ["3:5:7", "6:10:14"], ["3:5:8"], ["3"]],
    "complex numbers": [
        ["\\frac{1}{2}+\\frac{1}{2}i", "0.5+0.5i", "\\frac{1+i}{2}", "\\frac{1}{1-i}", "\\frac12 + \\frac i2",
         "(1+i)/2"],
        ["\\frac{1}{2}-\\frac{1}{2}i", "0.5 - 0.5i", "0.5 + -0.5i", "\\frac{1}{1+i}"],
        ["\\sqrt{-9}", "3i", "i\\sqrt{9}", "0+3i"],
        ["3"],
        ["(2+i)(2-i)", "5", "5+0i"],
        ["i^3", "-i"],
        ["e^{i\\pi/4}", "\\frac{\\sqrt2}{2}+\\frac{\\sqrt2}{2}i", "\\cos 45^\\circ + i \\sin 45^\\circ"],
    ],
    "degrees": [
        ["\\sin 60^\\circ", "\\frac{\\sqrt{3}}{2}", "\\cos 30^{\\circ}", "\\sin(60°)", "\\sin\\frac{\\pi}{3}"],
        ["\\sin 60"],
        ["2\\cos 70^\\circ", "2\\sin 20^\\circ"],
        ["\\cos 70"],
        ["60^\\circ", "60", "60°", "60\\text{ degrees}", "60^{\\circ}", "60 degrees"],
        ["61^\\circ"],
        ["22^\\circ 30'", "22.5^\\circ", "22.5"],
        ["22^\\circ 15'"],
    ],
    "plain code": [
        ["3*pi/4", "\\frac{3\\pi}{4}", "3pi/4", "0.75*pi", "(3/4)*pi"],
        ["3*pi/5"],
        ["x**3-2*x", "x^3-2x", "x(x^2-2)"],
        ["x**3+2*x"],
        ["exp(3)-1", "e^3-1", "-1+exp(3)", "e**3 - 1"],
        ["exp(3)+1"],
        ["-oo", "-\\infty", "-inf", "−∞"],
        ["oo", "\\infty", "+\\infty", "infinity"],
        ["abs(-11)", "|-11|", "11"],
    ],
    "functions": [
        ["\\operatorname{lcm}(4,6)", "12", "lcm(4,6)", "\\text{lcm}(4,6)", "\\mathrm{lcm}(4, 6)"],
        ["\\gcd(4,6)", "2", "\\min(2, 7)", "C(2,1)", "\\lfloor 2.9 \\rfloor", "\\lceil 1.2 \\rceil", "17 \\bmod 5"],
        ["\\binom{6}{2}", "15", "C(6,2)", "{}_6C_2", "\\dbinom62"],
        ["3\\operatorname{lcm}(4,6)", "36"],
        ["2\\cosh(1)", "e+e^{-1}"],
        ["\\log_2 32", "5", "\\frac{\\ln 32}{\\ln 2}", "\\log_{2}(32)"],
        ["4!", "24"],
        ["\\arctan 1", "\\frac{\\pi}{4}", "\\tan^{-1}(1)"],
    ],
    "polynomials": [
        ["(y+3)^2", "y^2+6y+9", "(y+3)(y+3)", "9+6y+y^2", "y² + 6y + 9"],
        ["y^2+6y-9"],
        ["y^2-6y+9", "(y-3)^2", "(3-y)^2"],
        ["x^2+6x+9"],
        ["1.5y", "\\frac{3y}{2}", "\\frac32 y", "3y/2"],
        ["|y|", "\\sqrt{y^2}"],
        ["y"],
    ],
    "letters under roots": [
        ["\\sqrt{\\frac{3}{m}}", "\\frac{\\sqrt{3}}{\\sqrt{m}}", "\\frac{\\sqrt{3m}}{m}"],
        ["\\sqrt{3m}", "\\sqrt3\\sqrt m"],
        ["\\sqrt[3]{m^2}", "m^{2/3}", "m^{\\frac23}"],
        ["\\ln(m^3)", "3\\ln m"],
        ["\\sqrt{m}"],
    ],
    "equations": [
        ["3x-y+7=0", "y=3x+7", "6x-2y+14=0", "y - 3x = 7", "-3x+y-7=0"],
        ["3x+y+7=0", "y=-3x-7"],
        ["3x-y+8=0"],
        ["x^2+y^2=9", "\\frac{x^2}{9}+\\frac{y^2}{9}=1"],
        ["x^2+y^2=16"],
    ],
    "intervals": [
        ["(2, 7.5)", "2 < x < 7.5", "2<x<\\frac{15}{2}", "x \\in (2, 7.5)", "(2,\\frac{15}2)", "7.5 > x > 2"],
        ["[2, 7.5)", "2 \\le x < 7.5", "2 <= x < 7.5"],
        ["(2, 7.5]", "2<x\\leq7.5"],
        ["[\\sqrt5, \\infty)", "x \\ge \\sqrt5", "\\sqrt{5} \\le x", "x \\geqslant \\sqrt{5}"],
        ["(\\sqrt5, \\infty)", "x > \\sqrt{5}"],
        ["(-\\infty,3)\\cup(3,\\infty)", "x \\ne 3", "\\mathbb{R} \\setminus \\{3\\}", "x<3 \\text{ or } x>3"],
        ["(-\\infty, 1] \\cup [4, \\infty)", "x \\le 1 \\text{ or } x \\ge 4", "[4,\\infty) \\cup (-\\infty,1]"],
        ["x > 2.5", "2x > 5", "2x - 5 > 0", "(\\frac52, \\infty)"],
        ["(-\\infty,\\infty)", "\\mathbb{R}"],
    ],
    "lists and sets": [
        ["\\{1, 4\\}", "4, 1", "x=1 \\text{ or } x=4", "1 \\text{ and } 4", "x = 4 or x = 1", "x \\in \\{1,4\\}"],
        ["\\{1, 5\\}", "5 \\text{ or } 1"],
        ["\\{1, 4, 5\\}", "1, 4, \\text{ and } 5", "5, 4 and 1"],
        ["1"],
        ["4"],
        ["\\pm 4", "4, -4", "\\mp 4", "-4 \\text{ or } 4", "\\{-4, 4\\}"],
        ["3 \\pm \\sqrt{2}", "3+\\sqrt2, 3-\\sqrt2", "x = 3\\pm\\sqrt2"],
        ["3+\\sqrt2"],
    ],
    "tuples": [
        ["(1, 4)", "x=1, y=4", "(x,y)=(1,4)", "y=4, x=1"],
        ["(4, 1)", "x=4, y=1"],
        ["\\{1,4\\}"],
        ["[1, 4]"],
        ["(1, 4, 5)"],
        ["(1,4), (2,3)", "(2,3), (1,4)", "(1,4) \\text{ and } (2,3)"],
        ["(1,4), (3,2)"],
    ],
    "dots": [
        ["1, 3, 5, \\ldots, 99"], ["1, 3, 9, \\ldots, 99"], ["1, 3, 5, \\ldots, 97"],
    ],
    "words around a number": [
        ["31 marbles, altogether", "31", "about 31", "31, since 20+11=31", "approximately 31", "There are 31 marbles",
         "the total is 31", "\\text{The answer is } 31", "31\\text{ marbles}", "31 marbles in all",
         "n = 31", "\\overline{AB} = 31", "f(2) = 31", "\\text{Total: } 31", "so 31", "31^{\\text{st}}"],
        ["32", "32 marbles", "32.0 marbles"],
        ["31 thousand", "31,000", "31\\text{ thousand}"],
    ],
    "sentences": [["\\text{Nora loses \\$31.}", "31", "\\$31", "x = \\$31.00"], ["\\text{Nora loses \\$32.}"]],
    "words": [
        ["\\text{no solution}", "no solutions", "No Solution"], ["\\text{yes}", "Yes"], ["no"], ["\\text{east}",
         "East"], ["seat"],
    ],
    "matrices": [
        ["\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}",
         "\\left[\\begin{array}{cc}1 & 2 \\\\ 3 & \\frac82\\end{array}\\right]"],
        ["\\begin{pmatrix} 1 & 2 \\\\ 3 & 5 \\end{pmatrix}"],
        ["\\begin{pmatrix} 1 & 3 \\\\ 2 & 4 \\end{pmatrix}"],
        ["\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"],
    ],
}  # fmt: skip


def both_ways(one: str, other: str) -> set[bool | None]:
    return {equivalent(pred, gold).correct for pred, gold in ((one, other), (other, one))}


@pytest.mark.parametrize("kind", KINDS)
def test_spellings_of_one_meaning_are_equal(kind: str) -> None:
    pairs = [pair for same in KINDS[kind] for pair in combinations(same, 2)]
    assert [pair for pair in pairs if both_ways(*pair) != {True}] == []


@pytest.mark.parametrize("kind", KINDS)
def test_answers_of_another_meaning_are_never_equal(kind: str) -> None:
    pairs = [(a, b) for one, other in combinations(KINDS[kind], 2) for a in one for b in other]
    verdicts = {pair: both_ways(*pair) for pair in pairs}
    assert [pair for pair, found in verdicts.items() if True in found] == []
    n_undecided = sum(None in found for found in verdicts.values())
    assert n_undecided <= len(pairs) / 3


@pytest.mark.parametrize("kind", KINDS)
def test_answers_of_another_meaning_never_have_one_key(kind: str) -> None:
    keys = [{canonical(answer) for answer in same} for same in KINDS[kind]]
    assert sum(map(len, keys)) == len(set.union(*keys))
