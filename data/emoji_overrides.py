"""Hand-written emoji names, where the Unicode name says something a reader would not see (DESIGN.md §5).

Unicode calls a red heart HEAVY BLACK HEART ("black" is an old printing term for "filled"), a rewind button BLACK
LEFT-POINTING DOUBLE TRIANGLE, and the neutral form of a gendered emoji now PEDESTRIAN, now FACE WITH OK GESTURE. A
caption must say what is visible and say it in one way, so these entries replace the package's name.
"""

# One line holds several `code point = name` pairs of one subject, separated by `;`.
_TABLE = """
1f170 = blood type a button; 1f171 = blood type b button; 1f17e = blood type o button; 1f18e = blood type ab button
1f17f = parking button; 1f199 = up button; 24c2 = circled m; 2139 = information button; 1f201 = japanese here button
1f202 = japanese service charge button; 1f21a = japanese free of charge button; 1f22f = japanese reserved button
1f232 = japanese prohibited button; 1f233 = japanese vacancy button; 1f234 = japanese passing grade button
1f235 = japanese no vacancy button; 1f236 = japanese not free of charge button; 1f237 = japanese monthly amount button
1f238 = japanese application button; 1f239 = japanese discount button; 1f23a = japanese open for business button
1f250 = japanese bargain button; 1f251 = japanese acceptable button; 3297 = japanese congratulations button
3299 = japanese secret button; 1f520 = uppercase letters button; 1f521 = lowercase letters button
1f522 = numbers button; 1f523 = symbols button; 1f524 = abc button; 0023-20e3 = keycap hash; 002a-20e3 = keycap star
1f51f = keycap 10; 1f500 = shuffle tracks button; 1f501 = repeat button; 1f502 = repeat single button
1f503 = clockwise vertical arrows; 1f504 = counterclockwise arrows button; 1f505 = dim button; 1f506 = bright button
1f53c = upwards button; 1f53d = downwards button; 23e9 = fast-forward button; 23ea = fast reverse button
23eb = fast up button; 23ec = fast down button; 25b6 = play button; 25c0 = reverse button; 1f4f6 = antenna bars
1f519 = back arrow; 1f51a = end arrow; 1f51b = on arrow; 1f51c = soon arrow; 1f51d = top arrow
2194 = left-right arrow; 2195 = up-down arrow; 2196 = up-left arrow; 2197 = up-right arrow; 2198 = down-right arrow
2199 = down-left arrow; 21a9 = right arrow curving left; 21aa = left arrow curving right; 27a1 = right arrow
2b05 = left arrow; 2b06 = up arrow; 2b07 = down arrow; 2934 = right arrow curving up; 2935 = right arrow curving down
1f4a0 = diamond with a dot; 1f53a = red triangle pointing up; 1f53b = red triangle pointing down
26aa = white circle; 26ab = black circle; 2b1b = large black square; 2b1c = large white square
25aa = small black square; 25ab = small white square; 25fb = medium white square; 25fc = medium black square
25fd = medium small white square; 25fe = medium small black square; 2753 = red question mark
2754 = white question mark; 2755 = white exclamation mark; 2757 = red exclamation mark; 2716 = multiply sign
2795 = plus sign; 2796 = minus sign; 2797 = divide sign; 1f7f0 = equals sign; 267e = infinity sign
267b = recycling symbol; 2705 = check mark button; 2714 = check mark; 274e = cross mark button; 2b55 = hollow red circle
2611 = check box with check; 2734 = eight-pointed star; 2733 = eight-spoked asterisk; 1f530 = japanese beginner symbol
2764 = red heart; 2665 = heart suit; 2660 = spade suit; 2663 = club suit; 2666 = diamond suit
1f4a4 = zzz; 1f4a5 = collision; 1f4a6 = sweat droplets; 1f4a8 = dashing away; 1f4ab = dizzy star
1f4af = hundred points; 2600 = sun; 2b50 = star; 26a1 = lightning bolt; 1f30d = globe showing europe and africa
1f30e = globe showing the americas; 1f30f = globe showing asia and australia; 1f507 = muted speaker
1f515 = bell with slash; 1f4e2 = loudspeaker; 1f4e3 = megaphone; 1f4a1 = light bulb; 1f526 = flashlight
1f50d = magnifying glass pointing left; 1f50e = magnifying glass pointing right; 1f3ee = red paper lantern
261d = index finger pointing up; 1f446 = backhand pointing up; 1f447 = backhand pointing down
1f448 = backhand pointing left; 1f449 = backhand pointing right; 1f44a = oncoming fist; 1f596 = vulcan salute
1f595 = middle finger; 1f91e = crossed fingers; 1f91f = love-you gesture; 1f64c = raising hands; 1f64f = folded hands
1faf5 = index finger pointing at the viewer; 1f3c3 = person running; 1f6b6 = person walking; 1f3c4 = person surfing
1f3ca = person swimming; 1f6a3 = person rowing boat; 1f6b4 = person biking; 1f6b5 = person mountain biking
1f938 = person cartwheeling; 1f939 = person juggling; 1f93c = people wrestling; 1f93d = person playing water polo
1f93e = person playing handball; 1f645 = person gesturing no; 1f646 = person gesturing ok; 1f647 = person bowing
1f64b = person raising hand; 1f64e = person pouting; 1f481 = person tipping hand; 1f926 = person facepalming
1f937 = person shrugging; 1f486 = person getting massage; 1f487 = person getting haircut; 1f482 = guard
1f473 = person wearing turban; 1f470 = person with veil; 1f935 = person in tuxedo; 1f472 = person with skullcap
1f46f = people with bunny ears; 1f9d1 = person; 1f9d3 = older person; 1f9cd = person standing; 1f9ce = person kneeling
1f6cc = person in bed; 1f6c0 = person taking bath; 1f483 = woman dancing; 1f46b = woman and man holding hands
1f385 = santa claus; 1f936 = mrs claus; 1f9d4 = person with beard; 1f47d = alien; 1f47f = angry face with horns
1f9d4-200d-2640 = woman with beard; 1f9d4-200d-2642 = man with beard; 1f92a = zany face; 1f929 = star-struck face
1f92b = shushing face; 1f92c = face with symbols on mouth; 1f92d = face with hand over mouth; 1f92e = vomiting face
1f92f = exploding head; 1f973 = partying face; 1f974 = woozy face; 1f975 = hot face; 1f976 = cold face
1f97a = pleading face; 1f60b = face savouring food; 1f618 = face blowing a kiss; 1f624 = face with steam from nose
263a = smiling face; 1f625 = sad but relieved face; 1f33d = ear of corn; 1f346 = eggplant; 1f373 = fried egg
1f52a = kitchen knife; 2615 = hot coffee; 1f370 = slice of cake; 1f6a8 = police car light; 1f6ab = prohibited sign
1f6ae = litter in bin sign; 1f6af = no littering sign; 1f6b0 = drinking water sign; 1f6b1 = no drinking water sign
1f6ad = no smoking sign; 1f6b9 = men's room sign; 1f6ba = women's room sign; 1f6d1 = stop sign; 1f6be = wc sign
1f6bb = restroom sign; 1f51e = no one under eighteen sign; 26d4 = no entry sign; 1f3e7 = atm sign; 1f6ac = cigarette
1f6b3 = no bicycles sign; 1f6b7 = no pedestrians sign; 1f4f5 = no mobile phones sign; 2622 = radioactive sign
2623 = biohazard sign; 1f4bb = laptop computer; 1f52b = water pistol; 1f004 = mahjong red dragon
1f0cf = joker playing card; 1f5ff = moai statue; 1f5fe = map of japan; 1f4e7 = e-mail; 1f517 = link; 1f9af = white cane
1f3b6 = musical notes; 1f4f2 = mobile phone with arrow; 260e = red telephone; 2702 = scissors; 1f3b1 = pool 8 ball
1f3af = dartboard; 1f302 = closed umbrella; 1f5e1 = dagger; 1f4e9 = envelope with arrow; 1f697 = red car
1f698 = oncoming car; 1f699 = blue car; 1f3e0 = house; 1f9e9 = puzzle piece; 1f3c2 = snowboarder; 1f45f = running shoe
1f3e3 = japanese post office; 1f3f4 = black flag; 1f38c = crossed flags; 1f6a9 = triangular flag; 1f95a = egg
1f1ed-1f1f0 = flag of hong kong; 1f1f2-1f1f4 = flag of macao; 1f1f2-1f1f2 = flag of myanmar
1f1e8-1f1e8 = flag of cocos islands; 1f468-200d-2764-200d-1f468 = two men with a heart
1f469-200d-2764-200d-1f468 = woman and man with a heart; 1f469-200d-2764-200d-1f469 = two women with a heart
1f3b4 = flower playing card; 1f923 = face rolling on the floor laughing; 1f4f4 = mobile phone off sign
1f4f3 = vibration mode sign; 1f6b8 = children crossing sign; 1f3a7 = headphones; 1f6eb = airplane taking off
1f6ec = airplane landing; 1f491 = couple with a heart; 1f48f = couple kissing
1f468-200d-2764-200d-1f48b-200d-1f468 = two men kissing
1f469-200d-2764-200d-1f48b-200d-1f468 = woman and man kissing; 1f469-200d-2764-200d-1f48b-200d-1f469 = two women kissing
"""


def _parse(table: str) -> dict[str, str]:
    pairs = (pair.split(" = ") for line in table.strip().splitlines() for pair in line.split("; "))
    return {code.strip(): name.strip() for code, name in pairs}


NAMES: dict[str, str] = _parse(_TABLE)
"""Concept (code points, fe0f stripped) → name."""
