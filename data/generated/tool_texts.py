"""What users and agents say in the scenes of `tool_talks`, and what the agent thinks, by language."""

from collections.abc import Mapping

Texts = Mapping[str, tuple[str, ...]]

TEXTS: Mapping[str, Texts] = {
    "weather": {
        "en": ("What will the weather be like in {city} {day}?", "Weather in {city} {day}, please."),
        "ko": ("{city}의 {day} 날씨는 어때요?", "{day} {city} 날씨를 알려 주세요."),
        "es": ("¿Qué tiempo hará {day} en {city}?", "Dime el tiempo de {day} en {city}, por favor."),
    },
    "weather_is": {
        "en": ("In {city} it is {sky} {day}, at {celsius} °C.",),
        "ko": ("{city}의 {day} 날씨는 {sky}, 기온은 {celsius}도입니다.",),
        "es": ("En {city}, {day}: {sky}, {celsius} °C.",),
    },
    "compare": {
        "en": ("Which is warmer {day}, {one} or {other}?", "Is it warmer in {one} or in {other} {day}?"),
        "ko": ("{day} {one}와(과) {other} 중 어디가 더 따뜻해요?",),
        "es": ("¿Dónde hará más calor {day}, en {one} o en {other}?",),
    },
    "warmer": {
        "en": ("{one} is warmer: {warm} °C, against {cold} °C in {other}.",),
        "ko": ("{one}이(가) 더 따뜻합니다. {one} {warm}도, {other} {cold}도입니다.",),
        "es": ("Hará más calor en {one}: {warm} °C, frente a {cold} °C en {other}.",),
    },
    "as_warm": {
        "en": ("Both have {celsius} °C.",),
        "ko": ("{one}와(과) {other} 모두 {celsius}도로 같습니다.",),
        "es": ("Las dos tienen {celsius} °C.",),
    },
    "percent": {
        "en": ("How much is {share}% of {amount}, plus {extra}?",),
        "ko": ("{amount}의 {share}%에 {extra}을(를) 더하면 얼마예요?",),
        "es": ("¿Cuánto es el {share}% de {amount} más {extra}?",),
    },
    "value": {"en": ("It is {value}.",), "ko": ("{value}입니다.",), "es": ("Son {value}.",)},
    "order": {
        "en": ("Where are my orders? My e-mail is {email}.", "Please check all orders of {email}."),
        "ko": ("제 주문이 어떻게 됐는지 알려 주세요. 이메일은 {email}입니다.",),
        "es": ("¿Cómo van mis pedidos? Mi correo es {email}.",),
    },
    "orders_are": {
        "en": ("Your orders: {listed}.",),
        "ko": ("주문 내역입니다. {listed}.",),
        "es": ("Sus pedidos: {listed}.",),
    },
    "number": {
        "en": ("What is the status of order {digits}?", "Tell me about order number {digits}."),
        "ko": ("주문 {digits}의 상태를 알려 주세요.",),
        "es": ("¿En qué estado está el pedido {digits}?",),
    },
    "order_is": {
        "en": ("Order {number} ({item}) is {status}; its address is {address}.",),
        "ko": ("주문 {number}({item})은(는) {status} 상태이며, 배송지는 {address}입니다.",),
        "es": ("El pedido {number} ({item}) está {status}; la dirección es {address}.",),
    },
    "cancel": {
        "en": ("Cancel order {number}, please: {reason}.",),
        "ko": ("주문 {number}을(를) 취소해 주세요. 이유: {reason}.",),
        "es": ("Cancele el pedido {number}, por favor: {reason}.",),
    },
    "is_cancelled": {
        "en": ("Order {number} is cancelled; you get {refund} euros back.",),
        "ko": ("주문 {number}을(를) 취소했습니다. {refund}유로가 환불됩니다.",),
        "es": ("El pedido {number} está cancelado; se le devuelven {refund} euros.",),
    },
    "refused": {
        "en": ("I cannot cancel order {number}: it is {status}, and only pending orders can be cancelled.",),
        "ko": ("주문 {number}은(는) {status} 상태라서 취소할 수 없습니다. 대기 중인 주문만 취소할 수 있습니다.",),
        "es": ("No puedo cancelar el pedido {number}: está {status}, y solo se cancelan los pendientes.",),
    },
    "address": {
        "en": ("I want order {number} sent to another address.",),
        "ko": ("주문 {number}의 배송지를 바꾸고 싶어요.",),
        "es": ("Quiero cambiar la dirección del pedido {number}.",),
    },
    "which_address": {
        "en": ("To which address should order {number} go? Street and number, please.",),
        "ko": ("주문 {number}을(를) 어느 주소로 보낼까요? 도로명과 번지를 알려 주세요.",),
        "es": ("¿A qué dirección debe ir el pedido {number}? Calle y número, por favor.",),
    },
    "new_address": {"en": ("To {street}.",), "ko": ("{street}(으)로 보내 주세요.",), "es": ("A {street}.",)},
    "address_changed": {
        "en": ("Order {number} now goes to {street}.",),
        "ko": ("주문 {number}의 배송지를 {street}(으)로 바꾸었습니다.",),
        "es": ("El pedido {number} irá ahora a {street}.",),
    },
    "event": {
        "en": ('Put "{title}" on {date} at {hour}:00.', 'Add "{title}" to my calendar: {date}, {hour}:00.'),
        "ko": ("{date} {hour}시에 '{title}' 일정을 넣어 주세요.",),
        "es": ("Apunta «{title}» el {date} a las {hour}:00.",),
    },
    "overlap": {
        "en": ('At {hour}:00 there is already "{title}". At which other hour?',),
        "ko": ("{hour}시에는 이미 '{title}' 일정이 있습니다. 다른 시간을 알려 주시겠어요?",),
        "es": ("A las {hour}:00 ya está «{title}». ¿A qué otra hora?",),
    },
    "other_hour": {
        "en": ("Then at {hour}:00.",),
        "ko": ("그럼 {hour}시로 해 주세요.",),
        "es": ("Entonces a las {hour}:00.",),
    },
    "event_added": {
        "en": ('"{title}" is on {date} at {hour}:00.',),
        "ko": ("{date} {hour}시에 '{title}' 일정을 넣었습니다.",),
        "es": ("«{title}» queda el {date} a las {hour}:00.",),
    },
    "file": {
        "en": ("What does the file {name} in {folder} say?",),
        "ko": ("{folder} 폴더의 {name} 파일에 뭐라고 적혀 있어요?",),
        "es": ("¿Qué dice el archivo {name} de la carpeta {folder}?",),
    },
    "file_says": {
        "en": ('{path} says "{text}".',),
        "ko": ("{path}에는 '{text}'이라고 적혀 있습니다.",),
        "es": ("{path} dice «{text}».",),
    },
    "days_chat": {
        "en": ("A quick one without any tool: how many hours are {count} days?",),
        "ko": ("도구 없이 답해 주세요. {count}일은 몇 시간이에요?",),
        "es": ("Sin herramientas: ¿cuántas horas son {count} días?",),
    },
    "days_chat_is": {
        "en": ("{count} days are {hours} hours.",),
        "ko": ("{count}일은 {hours}시간입니다.",),
        "es": ("{count} días son {hours} horas.",),
    },
    "weeks_chat": {
        "en": ("No need to look anything up: how many days are {count} weeks?",),
        "ko": ("찾아볼 필요 없이 답해 주세요. {count}주는 며칠이에요?",),
        "es": ("No hace falta buscar nada: ¿cuántos días son {count} semanas?",),
    },
    "weeks_chat_is": {
        "en": ("{count} weeks are {days} days.",),
        "ko": ("{count}주는 {days}일입니다.",),
        "es": ("{count} semanas son {days} días.",),
    },
    "today": {"en": ("today",), "ko": ("오늘",), "es": ("hoy",)},
    "tomorrow": {"en": ("tomorrow",), "ko": ("내일",), "es": ("mañana",)},
    "saturday": {"en": ("on Saturday",), "ko": ("토요일",), "es": ("el sábado",)},
    "sunday": {"en": ("on Sunday",), "ko": ("일요일",), "es": ("el domingo",)},
    "sunny": {"en": ("sunny",), "ko": ("맑음",), "es": ("sol",)},
    "cloudy": {"en": ("cloudy",), "ko": ("흐림",), "es": ("nubes",)},
    "rain": {"en": ("rainy",), "ko": ("비",), "es": ("lluvia",)},
    "snow": {"en": ("snowy",), "ko": ("눈",), "es": ("nieve",)},
    "fog": {"en": ("foggy",), "ko": ("안개",), "es": ("niebla",)},
    "pending": {"en": ("pending",), "ko": ("대기 중",), "es": ("pendiente",)},
    "shipped": {"en": ("shipped",), "ko": ("배송 중",), "es": ("enviado",)},
    "delivered": {"en": ("delivered",), "ko": ("배송 완료",), "es": ("entregado",)},
    "cancelled": {"en": ("cancelled",), "ko": ("취소됨",), "es": ("cancelado",)},
    "no longer needed": {"en": ("no longer needed",), "ko": ("더 이상 필요 없음",), "es": ("ya no lo necesito",)},
    "ordered by mistake": {"en": ("ordered by mistake",), "ko": ("실수로 주문함",), "es": ("lo pedí por error",)},
}

THOUGHTS: Mapping[str, Mapping[str, str]] = {
    "answer": {
        "en": "I have what I need to answer.",
        "ko": "답하는 데 필요한 것을 알고 있다.",
        "es": "Tengo lo necesario para responder.",
    },
    "look_up": {
        "en": "This has to be looked up.",
        "ko": "이것은 조회해야 한다.",
        "es": "Esto hay que consultarlo.",
    },
    "both": {
        "en": "Neither call needs the other's result, so both go at once.",
        "ko": "두 호출은 서로의 결과가 필요 없으니 한꺼번에 한다.",
        "es": "Ninguna llamada necesita el resultado de la otra, así que van las dos a la vez.",
    },
    "work_out": {
        "en": "The calculator can work this out.",
        "ko": "계산기로 계산할 수 있다.",
        "es": "La calculadora puede resolverlo.",
    },
    "expression": {
        "en": "The calculator takes numbers and + - * / only, so percent is divided by 100.",
        "ko": "계산기는 숫자와 + - * /만 받으므로 퍼센트는 100으로 나눈다.",
        "es": "La calculadora solo acepta números y + - * /, así que el porcentaje se divide entre 100.",
    },
    "find": {
        "en": "Orders are listed by customer id, so first the id.",
        "ko": "주문은 고객 번호로 조회하므로 먼저 고객 번호를 찾는다.",
        "es": "Los pedidos van por cliente, así que primero busco su número.",
    },
    "then_orders": {
        "en": "With the id I can list the orders.",
        "ko": "고객 번호로 주문 목록을 조회한다.",
        "es": "Con el número puedo listar los pedidos.",
    },
    "each_order": {
        "en": "The list has numbers only; each order has its status.",
        "ko": "목록에는 번호만 있으므로 주문마다 상태를 조회한다.",
        "es": "La lista solo tiene números; el estado está en cada pedido.",
    },
    "mark": {
        "en": "The error says how numbers look: with #W in front.",
        "ko": "오류에 따르면 번호 앞에 #W를 붙여야 한다.",
        "es": "El error dice cómo son los números: con #W delante.",
    },
    "do_it": {
        "en": "All that the call needs is known.",
        "ko": "호출에 필요한 것을 모두 알고 있다.",
        "es": "Ya sé todo lo que pide la llamada.",
    },
    "other_hour": {
        "en": "The same event, at the hour that the user names now.",
        "ko": "같은 일정을 사용자가 새로 말한 시간에 넣는다.",
        "es": "El mismo evento, a la hora que dice ahora el usuario.",
    },
    "look_around": {
        "en": "I need the file's whole name, so I list the folder.",
        "ko": "파일의 정확한 이름이 필요하므로 폴더를 조회한다.",
        "es": "Necesito el nombre completo del archivo, así que miro la carpeta.",
    },
    "read": {
        "en": "Now the path is known.",
        "ko": "이제 경로를 알고 있다.",
        "es": "Ahora conozco la ruta.",
    },
}
