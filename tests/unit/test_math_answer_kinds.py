r"""Ways in which models and data sets write one answer, and near misses, by kind: (found in a box, gold)."""

import pytest

from rewards.math_answer import extract_answer, score

SAME = {
    "decimal points": [
        (".5", "0.5"), (r"\$.75", ".75"), ("-.5", "-0.5"), (".50", r"\frac12"), ("0.5.", ".5"), (".5 cm", "0.5"),
        (r"\text{.5}", "0.5"), (r".5\%", r"0.5\%"), ("x = .25", r"\frac{1}{4}"), ("(.5, 1)", r"(\frac12, 1)"),
        (r".5\pi", r"\frac{\pi}{2}"), ("5.", "5"),
    ],
    "exact numbers": [
        (r"\frac{2^{60}}{2^{61}}", r"\frac12"), (r"\sqrt{10^{40}}", "10^{20}"),
        (r"1-\frac{2}{2^{101}}", r"1-\frac{1}{2^{100}}"), (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5+2\sqrt{6}}"),
        ("1.414214", r"\sqrt{2}"), ("3.141593", r"\pi"), (r"\{1-\frac{1}{2^{100}}\}", r"\{1-2^{-100}\}"),
        ("e^{-200}", r"\frac{1}{e^{200}}"),
    ],
    "scale words": [
        ("3 million", "3000000"), (r"2.4\text{ billion}", "2,400,000,000"), (r"\$3\text{ million}", "3000000"),
        ("2 dozen eggs", "24"), ("two dozen", "24"), (r"50\text{ per cent}", r"50\%"), ("25 percent", "25"),
        ("25 pct", "0.25"), ("12 thousand", "12,000"), (r"1.5\times 10^6", "1.5 million"), ("3만 원", "30000"),
        ("3万元", "30000"), ("5 mil", "5000"), (r"\$2.4M", "2.4 million"), (r"\$12k", "12000"),
        ("3 hundred thousand", "300000"), (r"25\text{ cents}", "25"), (r"25\text{ cents}", r"\$0.25"),
        (r"100\text{ cents}", r"\$1"), ("50%", "50 percent"), (r"3 \text{ million people}", "3000000"),
        ("2 docenas", "24"),
    ],
    "text": [
        (r"a_{\mathrm{max}}", r"a_{\text{max}}"), ("v_{max}+1", r"1+v_{\text{max}}"),
        (r"T_{\text{cold}} < T_{\text{hot}}", r"T_{\text{hot}} > T_{\text{cold}}"),
        (r"5^\circ\text{ below zero}", "-5"), (r"5\text{ degrees below zero}", r"-5^\circ"),
        (r"10\%\text{ increase}", r"10\%"), (r"5 \text{ more apples}", "5"), (r"\text{increasing}", "increasing"),
        ("4 hundred", "400"), (r"3\text{ km north}", r"3\text{ km}"),
    ],
    "inequalities": [
        ("a<b<c", "c>b>a"), ("a < b<c", "c > b > a"), (r"3\ne x", r"x\ne3"), (r"x \not< 3", r"x\ge3"),
        (r"x\not>3", r"x\le3"),
        (r"x \nless 3", r"x\ge3"), (r"x\ge1 \text{ and } x\le2", r"1\le x\le2"),
        (r"x\le1, x\ge2", r"x\le1 \text{ or } x\ge2"),
        (r"\text{No solution}", r"\emptyset"), (r"\text{no solutions}", r"\varnothing"),
        (r"\text{empty set}", r"\emptyset"),
        ("x > 2", r"(2, \infty)"), ("2 < x", "x > 2"), (r"x \ge 2", r"[2,\infty)"), (r"x \in (1,3]", r"1 < x \le 3"),
        (r"3 \geq x > 1", "(1,3]"), (r"x>4 \text{ or } x<-1", r"x<-1 \text{ or } x>4"),
        (r"x<-1 \lor x>4", r"(-\infty,-1)\cup(4,\infty)"), (r"-1<x \land x<4", "(-1,4)"), (r"\{x : x > 2\}", "x>2"),
        (r"\{x \in \mathbb{R} \mid x \leq 0\}", r"(-\infty, 0]"), (r"x \ne 2", r"(-\infty,2)\cup(2,\infty)"),
        (r"-\sqrt{2} < x < \sqrt{2}", r"(-\sqrt2,\sqrt2)"), (r"\frac12 < x", "x > 0.5"),
        (r"(4,\infty) \cup (-\infty,-1)", r"(-\infty,-1)\cup(4,\infty)"), ("c > b > a", "a < b < c"),
        ("x<3 and x>1", "1<x<3"), (r"x \leqslant 3", r"x\le3"), (r"0 \ge y \ge -2", r"-2 \le y \le 0"),
        (r"(-\infty, \infty)", r"\mathbb{R}"), ("x < -1, x > 4", r"(-\infty,-1)\cup(4,\infty)"), ("x≥2", r"x \ge 2"),
    ],
    "bases": [
        ("{1011}_{2}", "1011_2"), (r"\overline{1011}_2", "1011_2"), ("0b1101", "1101_2"), ("0xFF", "FF_{16}"),
        ("0xff", r"\text{FF}_{16}"), ("0o17", "17_8"), ("11", "11_2"), ("11_{10}", "11"),
        (r"1011_{\text{two}}", "1011_2"), (r"(1011)_{\text{two}}", "1011_2"), ("2516_{(8)}", "2516_8"),
        (r"2516 \text{ (base 8)}", "2516_8"), (r"2516_{\text{base }8}", "2516_8"), (r"2516\text{ base }8", "2516_8"),
        ("2516 in base 8", "2516_8"), ("(A5)_{16}", r"\text{A5}_{16}"), ("a5_{16}", "A5_{16}"),
        ("(1, 2)", r"\left(1,2\right)"), (r"1\,011_2", "1011_2"), (r"2516_{\text{ten}}", "2516_{10}"),
        (r"\text{2516}_8", "2516_8"),
    ],
    "ratios": [
        ("2 : 3", "2:3"), (r"2\text{ to }3", "2:3"), ("2 to 3", "2:3"), ("2{:}3", "2:3"), (r"2\mathbin{:}3", "2:3"),
        (r"\frac23", "2:3"), ("4:6", "2:3"), ("1:2:3", "1 : 2 : 3"), ("3, 1, 2", "1, 2, 3"),
        (r"\{3, 1\}", r"\{1, 3\}"), ("2:3", r"2\colon3"), ("05:00", r"5\!:\!00"), ("2∶3", "2:3"),
    ],
    "powers of ten": [
        ("1.5e-7", r"1.5\times10^{-7}"), ("1.5E-7", r"1.5 \cdot 10^{-7}"), ("1.5*10^-7", "1.5e-7"),
        ("1.5 × 10⁻⁷", "1.5e-7"), ("10^{-3}", "0.001"), (r"6.02 \times 10^{23}", "602000000000000000000000"),
        ("1.5 x 10^6", "1500000"), ("5e3", "5000"), (r"-2 \times 10^{2}", "-200"),
    ],
    "repeating decimals": [
        (r"0.\overline{3}", r"\frac13"), (r"0.\bar{3}", "1/3"), (r"0.\dot{1}2\dot{3}", r"\frac{123}{999}"),
        ("0.(3)", r"\frac13"), ("0.1(6)", r"\frac16"), ("0.333...", r"\frac13"), (r"0.1666\ldots", r"\frac16"),
        (r"0.\overline{9}", "1"), (r"3.\overline{142857}", r"\frac{22}{7}"), (r"0.\overline{09}", r"\frac{1}{11}"),
        (r"-0.\overline{3}", r"-\frac13"), (r"0.\overline{3}", "0.333333"), (r".\overline{3}", r"\frac13"),
        (r"0.1212\ldots", r"\frac{4}{33}"), (r"16.\overline{6}\%", r"\frac{1}{6}"),
    ],
    "signs": [
        ("4-(-3)i", "4+3i"), ("4 - (-3)i", "4+3i"), ("2-(-x)", "2+x"), ("x+(-3)^2", "x+9"), ("x-(-3)^2", "x-9"),
        (r"1\cdot x", "x"), (r"1 \cdot x + 2", "x+2"), (r"x/y \cdot 2", r"\frac{2x}{y}"),
        ("14.0 + -1.0i", "14-i"), ("14 + (-1)i", "14-i"), ("14-1i", "14 - i"), ("0 + 1i", "i"), ("-1i", "-i"),
        ("+5", "5"), ("--5", "5"), ("-(-5)", "5"), ("2 - -3", "5"), ("1x + 2", "x+2"), ("x + -2", "x-2"),
        ("x - (-2)", "x+2"), ("1*x", "x"), ("2*x", "2x"), ("3.0x", "3x"), ("-1x^2", "-x^2"), ("x^1", "x"),
        ("(14) - i", "14-i"), ("1.0", "1"), ("1.50x", "1.5x"), ("-0", "0"), (r"1\sqrt{2}", r"\sqrt2"), ("2+1x", "x+2"),
    ],
    "remarks": [
        (r"n(n+1), n \in \mathbb{N}", "n(n+1)"), (r"2k\pi, \text{ where } k \in \mathbb{Z}", r"2k\pi"),
        (r"2k\pi \; (k \in \mathbb{Z})", r"2k\pi"), (r"2k\pi, k\in\mathbb Z", r"2\pi k"),
        (r"x^2 \text{ for all real } x", "x^2"), (r"2^n - 1 \text{ for every positive integer } n", "2^n-1"),
        (r"k\pi", r"k\pi, \quad k \in \mathbb{Z}"), ("n^2 for all integers n", "n^2"),
        (r"\{k\pi \mid k \in \mathbb{Z}\}", r"k\pi"), (r"x+1 \text{ if } x \ne 1", "x+1"),
        (r"Ce^{x}, \text{ where } C \text{ is an arbitrary constant}", "Ce^x"),
        (r"k\pi \text{ for integers } k", r"k\pi \text{ where } k \text{ is an integer}"),
    ],
    "units": [
        ("500 ₹", "500"), ("₹500", "500 ₹"), (r"\pounds 20", "20"), (r"\pounds20", "£20"), ("6 rs", "Rs 6"),
        ("5 km", "5"), ("5km", "5"), (r"5\,\mathrm{km}", r"5\text{ km}"), ("5 kilometers", "5 km"), ("5000 m", "5 km"),
        ("1 hour", "60 minutes"), ("5 m/s", r"5\text{ m/s}"), (r"5\ \frac{\text{m}}{\text{s}}", "5"),
        ("5 meters per second", "5 m/s"), (r"12\text{ cm}^2", r"12 \text{ square centimeters}"), ("12 cm²", "12"),
        ("12 sq cm", r"12\text{ cm}^2"), ("60 mph", "60 miles per hour"), ("5 fichas", "5"), ("5마리", "5"),
        ("12 명", "12"), ("5 个", "5"), ("5000 원", "5000"), ("EUR 500", "500 euros"), ("€500", "500"),
        ("₩5000", "5000원"), ("$500", "500 dollars"), ("500 USD", r"\$500"), ("500 dólares", "500"),
        ("15 años", "15 years"), ("3 horas", "3"), ("3 horas", "180 minutes"), (r"\text{7 red apples}", "7"),
        ("7 apple(s)", "7"), ("12 inches", "1 foot"), ("5 pounds", "5 lbs"), ("£5", "5 pounds"),
        (r"\$5\text{ per hour}", r"\$5"), (r"5\text{ }\mathrm{m}/\mathrm{s}^2", "5"), (r"5 \text{ m s}^{-1}", "5 m/s"),
        (r"9\pi\text{ cm}^2", r"9\pi"), (r"9\pi cm^2", r"9\pi"), (r"25^\circ\text{C}", "25"), ("25 °C", r"25^\circ C"),
        ("25 degrees", r"25^\circ"), ("5 units", "5"), (r"2\sqrt{3}\text{ feet}", r"2\sqrt{3}"),
        (r"\frac{1}{2}\text{ hour}", "30 minutes"), ("12 square units", "12"), ("3 L", "3"),
        (r"3\text{ L}", "3000 mL"), ("5 cm by estimate", "5"),
    ],
    "numbers": [
        ("half a dozen", "6"), (r"\text{half a dozen}", "6"), ("two thirds", r"\frac23"), (r"\text{two-thirds}", "2/3"),
        ("one half", "0.5"), ("one-half", r"\frac12"), ("a quarter", r"\frac14"), ("three quarters", "0.75"),
        ("half", "1/2"),
        ("1.500,00", "1500"), ("1.234.567,50", "1234567.5"), (r"3^{\text{rd}}", "3"), (r"21^\text{st}", "21"),
        (r"\frac{\pi}{3}", r"60^\circ"), (r"60^\circ", r"\frac{\pi}{3}"),
        (r"\frac{\pi}{3} \text{ radians}", r"\frac{\pi}{3}"), (r"60^\circ", "60"), ("four", "4"),
        (r"\text{twenty-five}", "25"), ("4", r"\mbox{four}"), (r"\text{one hundred}", "100"), ("1_000_000", "1000000"),
        ("1.000.000", "1000000"), ("½", "0.5"), ("2½", r"\frac52"), (r"2 \frac{1}{2}", "2.5"), ("1 000", "1000"),
        (r"\frac{1}{2}", r"\tfrac12"), (r"\frac12", r"\cfrac{1}{2}"), ("2²", "4"), ("√2", r"\sqrt{2}"),
        ("3π", r"3\pi"), (r"-\frac{1}{2}", r"\frac{-1}{2}"), (r"\frac{1,000}{3}", r"\frac{1000}{3}"),
        (r"\text{5}", "5"), (r"\mathbf{5}", "5"), ("5,0", "5, 0"), ("10{,}000.50", "10000.5"), (r"\mathrm{3}", "3"),
        ("(5)", "5"), ("{5}", "5"), ("$5$", "5"), (r"\(5\)", "5"), ("three apples", "3"),
    ],
    "labels": [
        ("5=x", "5"), ("5 = x", "x = 5"), (r"\frac12 = x", "0.5"),
        (r"x=2 \text{ or } x=3", "2,3"), ("x = 2, y = 3", "(2,3)"), ("x = 2, 3", "2, 3"),
        (r"\text{Therefore, } 5", "5"),
        (r"\text{(B)}\ 42", "B"), ("(B) 42", "42"), ("B. 42", "B"), ("B) 42", "B"), ("Choice B", "B"),
        (r"\text{choice (B)}", "B"), (r"\textbf{B}", "B"), (r"\mathbf{(B)}", "B"), (r"\text{B}", r"\textbf{(B)}\ 42"),
        ("42", r"\textbf{(B)}\ 42"), ("Answer: 5", "5"), (r"\text{Answer: } 5", "5"), (r"\text{Answer: 5}", "5"),
        ("The final answer is 5", "5"), (r"x \approx 1.414", "1.414"), ("about 5", "5"),
        (r"\text{approximately } 5", "5"), ("= 5", "5"), (r"\therefore 5", "5"), ("~5", "5"), (r"\sim 5", "5"),
        (r"\sqrt{2} \approx 1.414", r"\sqrt2"), (r"\sqrt{2} \approx 1.414", "1.414"), ("n = 5", "5"),
        (r"\text{Area} = 5", "5"), ("f(x) = x^2", "x^2"), (r"A = \pi r^2 = 9\pi", r"9\pi"), (r"P(A) = \frac12", "0.5"),
        ("**5**", "5"), (r"\text{Option (B)}", r"\text{B}"), ("(B)", "B"), ("B.", "B"),
        (r"\text{The answer is 5}", "5"), ("option b", "B"), (r"\textbf{(B) } 42", "B"), (r"\text{(B) 42}", "B"),
        (r"\theta = 30^\circ", "30"), ("Total: 5", "5"),
    ],
}  # fmt: skip

DIFFERENT = {
    "decimal points": [
        (".5", "5"), ("5", ".5"), (".125", "125"), ("-.5", "0.5"), (r"\$.75", "75"), ("x = .5", "5"),
        ("(.5, 1)", "(5, 1)"),
    ],
    "exact numbers": [
        (r"\frac16", r"\frac{1}{3 \cdot 2^{306}}"), ("0", r"\frac{1}{2^{100}}"), ("0", "10^{-30}"),
        ("1", "1-10^{-20}"), ("10^{50}", "10^{50}+1"), ("e^{-200}", "e^{-300}"),
        (r"(0, 1-\frac{1}{2^{100}})", r"(0, 1-\frac{1}{2^{101}})"), (r"1-(\frac{1}{3})^{90}", r"1-(\frac13)^{91}"),
        (r"\frac{3^{80}+1}{3^{80}}", "1"), (r"\sqrt{4^{99}+1}", "2^{99}"), ("1.41", r"\sqrt{2}"), ("1.5e-7", "0"),
        ("0.0000001x", "0"), (r"\{10^{-30}\}", r"\{10^{-31}\}"), ("22/7", r"\pi"),
        (r"\frac{10^{30}+1}{10^{30}}x", "x"),
    ],
    "scale words": [
        ("3", "3 million"), ("3 million", "3"), ("3 thousand", "3 million"), ("2 dozen", "2"), ("25 cents", r"\$25"),
        (r"50\text{ percent}", r"5\%"), ("3000", "3 million"), (r"\$3", r"3\text{ million dollars}"),
        ("2.4 million", "2.4 billion"), ("3만", "3"), ("12 thousand", "12"), ("5 mil", "5"), (r"\$12k", "12"),
        (r"\$5", r"5\text{ cents}"), ("3 hundred", "3 thousand"), ("12k", "12000"),
    ],
    "text": [
        (r"20\text{ late}", r"20\text{ early}"), (r"3\text{ wins}", r"3\text{ losses}"), ("100 BC", "100 AD"),
        (r"10\text{ deposits}", r"10\text{ withdrawals}"), ("100 BCE", "100 CE"), (r"100\text{ BC}", r"100\text{ AD}"),
        (r"\$5\text{ debt}", r"\$5\text{ credit}"),
        (r"a_{\text{max}}", r"a_{\text{min}}"), ("v_{max}", "v_{min}"),
        (r"5\text{ units left}", r"5\text{ units right}"), (r"10\%\text{ increase}", r"10\%\text{ decrease}"),
        (r"\$5\text{ profit}", r"\$5\text{ loss}"), (r"5\text{ below zero}", "5"), (r"x_{\text{A}}", r"x_{\text{B}}"),
        (r"\text{Alice} > \text{Bob}", r"\text{Bob} > \text{Alice}"), ("5 a.m.", "5 p.m."), (r"5\text{ or more}", "5"),
        (r"\text{not }5", "5"), (r"\text{increasing}", r"\text{decreasing}"), (r"\text{even}", r"\text{odd}"),
        (r"E_{\text{kin}} + E_{\text{pot}}", r"E_{\text{kin}} - E_{\text{pot}}"), (r"E_{\text{kin}}", "E"),
        ("5 at most", "5"), (r"5 \text{ or } 6", "5"), (r"3\text{ km north}", r"3\text{ km south}"),
        (r"\text{amor}", r"\text{Roma}"), (r"\text{less than 5}", "5"), (r"\text{at least } 5", "5"),
        (r"5\text{ is impossible}", "5"), (r"\angle ABC", r"\angle BAC"),
    ],
    "inequalities": [
        (r"x\le2\text{ and }x\ge5", r"x\le2\text{ or }x\ge5"), ("x<1 and x>3", "x<1 or x>3"),
        (r"x<1 \wedge x>3", r"x<1 \vee x>3"), (r"x\ge1 \text{ or } x\le2", r"x\ge1 \text{ and } x\le2"),
        ("a<b<c", "c<b<a"),
        (r"3\ne x", r"x\ne4"), (r"x \not< 3", "x>3"), (r"x \not< 3", r"x\le3"), (r"\text{No solution}", "0"),
        ("x > 2", "x < 2"), ("x > 2", r"x \ge 2"), ("2 > x", "x > 2"), ("3 > x > 1", r"3 \ge x > 1"),
        (r"x<-1 \text{ and } x>4", r"(-\infty,-1)\cup(4,\infty)"),
        (r"x < -1 \text{ or } x > 5", r"(-\infty,-1)\cup(4,\infty)"), (r"\{x \mid 1 < x < 4\}", "(1,3)"),
        (r"x \ne 2", r"(-\infty,3)\cup(3,\infty)"), ("1<x<3", "[1,3]"), ("a > b > c", "a < b < c"),
        ("x > 1", "1 < x < 3"), (r"\mathbb{R}", r"(0,\infty)"), (r"x \in [1,3]", "1<x<3"), ("x > 2", "y > 2"),
        ("-1 < x < 4", "x > -1 or x < 4"), ("x>2", "2"), (r"x \neq 2", "2"),
    ],
    "bases": [
        ("11_2", "11"), ("11_{16}", "11"), ("0b1101", "1101_3"), ("0b1101", "1101"), ("0xFF", "FE_{16}"),
        ("{1011}_{2}", "1011_3"),
        ("1011_2", "1011_3"), ("(1011)_2", "1010_2"), (r"2516_{\text{eight}}", "2516_9"), ("1358_{10}", "2516_8"),
        (r"2516\text{ base }7", "2516_8"), ("(A5)_{16}", "(A6)_{16}"), ("x_1", "x_2"), ("2516", "2517_8"),
    ],
    "ratios": [
        ("3:2", "2:3"), ("2:3", "2:4"), ("1:2", "1:2:3"), ("2 to 3", "3:2"), ("4:51", "4:15"), ("3:2", r"\frac23"),
        (r"\text{red, blue}", r"\text{blue, red}"), ("(3,1)", "(1,3)"), ("2:3", "23"), ("0:0", "2:3"),
    ],
    "powers of ten": [
        ("1.5e-7", r"1.5\times10^{-6}"), ("1.5e7", r"1.5\times10^{-7}"), ("1.5", "1.5e-7"), ("10^{-3}", "10^{3}"),
        ("1.5 x 10^6", "1.5"), ("6.02e23", r"6.03\times10^{23}"), ("2e3", "2e^3"),
    ],
    "repeating decimals": [
        (r"0.\overline{3}", "0.3"), ("0.333", r"\frac13"), (r"0.\overline{6}", r"\frac13"),
        (r"0.1\overline{6}", r"\frac{1}{16}"), (r"0.\overline{12}", r"0.1\overline{2}"), ("0.(3)", "0.3"),
        (r"0.1\dot{6}", "0.16"),
    ],
    "signs": [
        ("4-(-3)i", "4-3i"), ("x-(-3)^2", "x+9"), ("x+(-3)^2", "x-9"),
        (r"5 \cdot x", "5"), ("5/x", "5"), ("5/m", "5"), ("5*x", "5"), (r"5 \cdot m", "5"),
        ("14 + 1i", "14-i"), ("14 - -1i", "14-i"), ("x - -2", "x-2"), ("11x", "x"), ("1x", "1"), ("-(-5)", "-5"),
        ("10x", "x"), ("21i", "2i"), ("x^{1x}", "1"), ("14.0 + -1.0i", "14+i"), ("x_1 x", "x_x"), ("2^1x", "2^x"),
    ],
    "remarks": [
        (r"k\pi \text{ for even integers } k", r"k\pi"),
        (r"k\pi \text{ for odd } k \text{ integers}", r"k\pi \text{ for even integers } k"),
        (r"n(n+2), \text{ where } n \text{ is a positive integer}", "n(n+1)"), (r"2k\pi, k \in \mathbb{Z}", r"k\pi"),
        (r"p \text{ where } p \text{ is a prime number}", "p"), ("5 with remainder 3", "5"),
        (r"3\text{ remainder }2", "3"),
    ],
    "units": [
        ("2ab", "2"), ("6rs", "6"), ("2bc", "2"), ("7ds", "7"), ("3pq", "3"), ("500 ₹", r"\$500"),
        (r"\pounds 20", r"\$20"),
        ("5 km", "5 m"), ("5 m/s", "5 km/h"), ("5 m/s", "5 m"), ("5 hours", "5 minutes"),
        (r"12\text{ cm}^2", r"12\text{ cm}"), (r"12\text{ cm}^2", r"12\text{ cm}^3"), ("5 dollars", "5 euros"),
        ("¥500", r"\$500"), ("5 kg", "5 pounds"), (r"5^\circ C", r"5^\circ F"), ("20 days", "20 miles"),
        ("5 años", "5 días"), ("5시간", "5분"), ("5 元", "5 dollars"), ("100 cm", "1"), ("1 km", "100 m"), ("5x", "5"),
        ("5m", "5n"), ("2x apples", "2"), ("USD 500", "EUR 500"), ("60 miles", "60 miles per hour"),
        ("5 sq ft", "5 sq m"), ("5 inches", "5 feet"), ("5 square feet", "5 feet"), ("5 l", "5 kg"),
        ("5 meters", "50"), ("3n", "3"), ("5 grams", "5 liters"),
    ],
    "numbers": [
        ("two thirds", "2"), ("two thirds", "1/2"), ("third", "1/3"), ("twenty third", "20/3"), ("half a dozen", "12"),
        ("1.500,00", "1.5"), ("1.500,00", "150000"), (r"3^{\text{rd}}", "4"), ("1.500,5", "1500.5"),
        (r"\frac{\pi}{3}", "60"), (r"\frac{\pi}{4}", r"60^\circ"), ("60", r"\frac{\pi}{3}"),
        (r"60^\circ", r"\frac{\pi}{6}"), ("four", "5"), ("fourteen", "4"), ("twenty-five", "20"), ("2½", "1"),
        ("1.000", "1000"), ("1,5", "15"), ("12,25,100", "1225100"), ("one hundred", "1"), ("2^10", "210"),
        ("1 2 3", "123"), ("sixty", "6"), ("1,2/3", "4"), ("second", "2"),
    ],
    "labels": [
        ("5=x", "6"), ("5=x", "y=5"),
        (r"x=2 \text{ or } x=3", "3"), ("x = 2, y = 3", "3"), ("x = 2 or 3", "3"),
        ("(A) 42", "B"), ("(A) 42", r"\textbf{(B)}\ 42"), ("Option A", "B"), ("(B) 43", "42"),
        (r"\text{The answer is not 5}", "5"), (r"\approx 1.5", "1.414"), (r"5 \approx 7", "7"),
        (r"5 \approx 5.04 \approx 6", "6"), ("x = 5", "y = 5"), ("B or C", "B"), ("(A) or (B)", "B"), ("A, B", "B"),
        ("about 6", "5"), ("(B) - 42", "B"), (r"\text{Answer: }", "5"), ("2x = 5", "x = 5"), ("12x - 4y = 0", "0"),
        ("4 = 5", "4"), (r"1.4 \approx 1.5", "1.5"),
    ],
}  # fmt: skip


def by_kind(table):
    return [
        pytest.param(found, gold, id=f"{kind}: {found} | {gold}")
        for kind, pairs in table.items()
        for found, gold in pairs
    ]


@pytest.mark.parametrize(("found", "gold"), by_kind(SAME))
def test_one_answer_written_in_two_ways(found: str, gold: str) -> None:
    assert score([""], [rf"so it is $\boxed{{{found}}}$."], answer=[gold]) == [1.0]


@pytest.mark.parametrize(("found", "gold"), by_kind(DIFFERENT))
def test_near_misses(found: str, gold: str) -> None:
    assert score([""], [rf"so it is $\boxed{{{found}}}$."], answer=[gold]) == [0.0]


@pytest.mark.parametrize(
    ("text", "right", "wrong"),
    [
        ("The answer is .5.", "0.5", "5"),
        ("Therefore x = 2 or x = 3.", "2,3", "3"),
        ("So x=2, x=3 and x=4", "2,3,4", "4"),
        ("Answer: − 3", "-3", "3"),
        ("Answer: - 3", "-3", "3"),
        ("So x = - 3.", "-3", "3"),
        ("It costs 1.500,00 EUR", "1500", "0"),
        ("The price is 1.234,50 €", "1234.5", "50"),
        ("Answer: 1_000", "1000", "0"),
        ("So she needs 2 1/4 cups.", "9/4", "1/4"),
        (r"So it is 2\frac{1}{4} cups.", "2.25", "4"),
        (r"The answer is \frac{3}{4}.", "0.75", "4"),
        (r"The answer is \$9{,}500.", "9500", "500"),
        ("The answer is $9{,}500.", "9500", "500"),
        ("That is 9 500 people.", "9500", "500"),
        ("That is 1 250 000 won.", "1250000", "0"),
        (r"In all 12\,500 clips.", "12500", "500"),
        (r"In all 12,\!500 clips.", "12500", "500"),
        ("First 5$ and then 880$.", "880", "5"),
        ("He pays 880$", "880", "0"),
        ("They sold 3 million.", "3000000", "3"),
        ("They sold 2 dozen eggs.", "24", "2"),
        ("It is 40 percent.", r"40\%", "4"),
        ("So the ratio is 2:3.", "2:3", "3"),
        ("The area is 9π.", r"9\pi", "9"),
        (r"The area is 9\pi square units.", r"9\pi", "9"),
        ("It has 1.5 x 10^6 cells.", "1500000", "6"),
        (r"It has 1.5 \times 10^{-6} of them.", "1.5e-6", "6"),
        ("It is 10^-3.", "0.001", "3"),
        ("The point is (3, 4).", "(3,4)", "4"),
        ("We get 2 + 3i.", "2+3i", "3"),
        ("So it is 2x.", "2x", "2"),
        ("So it is x^2 + 5.", "x^2+5", "5"),
        ("The roots are 2 and 3.", "2,3", "3"),
        ("It is 5 or 6.", "5, 6", "6"),
        ("It is 2^10.", "1024", "10"),
        ("It is 3√2.", r"3\sqrt{2}", "3"),
        ("It takes 5 hours.", "5", "5 minutes"),
        ("It weighs 5 kg.", "5 kg", "5 m"),
        ("That makes 72 in all.", "72", "2"),
        ("5 - 3 = 2", "2", "3"),
        (r"It is 0.1\overline{6}.", r"\frac16", "0.1"),
        ("Costs fall from 3-5", "5", "-5"),
        ("She has 3/4 of them.", "3/4", "4"),
        ("She needs 2½ cups.", "2.5", "2"),
        ("So 7 x 8 = 56 cm^2.", "56", "2"),
        ("the number is 1011_2.", "1011_2", "2"),
        ("He saved $ 880 $.", "880", "8"),
        ("Thus $x = 5$ and not $6-2$, so $7$", "7", "4"),
    ],
)
def test_the_last_number_is_taken_whole(text: str, right: str, wrong: str) -> None:
    assert score([""], [text], answer=[right]) == [1.0], extract_answer(text)
    assert score([""], [text], answer=[wrong]) == [0.0], extract_answer(text)
