// Shows /openapi.json; the session cookie goes along, a key can be entered under Authorize.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true, defaultModelsExpandDepth: 0, validatorUrl: null });
